#include "ceilings.hpp"

#include <map>

namespace bench {

template <class In>
double product_rate() {
#ifdef __CUDACC__
    constexpr bool is_native = true;
    constexpr Index n = 8192;
#else
    constexpr bool is_native = std::is_same_v<In, Scalar>;
    constexpr Index n = 3072;
#endif
    if constexpr (!is_native) {
        return product_rate<Scalar>();
    } else {
        static const double rate = [] {
            const auto a = random_on<In>(backend(), n, n, 0, 1);
            const auto x = random_on<In>(backend(), n, n, 0, 2);
            auto c = backend().workspace<Scalar>(n, n);
            const auto product = [&] {
                if constexpr (std::is_same_v<In, Scalar>) {
                    backend().multiply(Scalar(1), Transpose::No, a.view(), x.view(), Scalar(0), c.view());
                } else {
#ifdef __CUDACC__
                    constexpr auto type = std::is_same_v<In, float16> ? CUDA_R_16F : CUDA_R_16BF;
                    const Scalar one = 1, zero = 0;
                    residua::detail::cuda::check(
                        cublasGemmEx(backend().blas(), CUBLAS_OP_N, CUBLAS_OP_T, n, n, n, &one, x.view().data,
                                     type, n, a.view().data, type, n, &zero, c.view().data, CUDA_R_32F, n,
                                     CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                        "cublasGemmEx");
#endif
                }
            };
            product();
            return 2.0 * double(n) * double(n * n) / best_seconds(5, product);
        }();
        return rate;
    }
}

template double product_rate<float>();
template double product_rate<float16>();
template double product_rate<bfloat16>();

/// As a solve does it.
template <class B>
void factor(B& device, MatrixView<Scalar> h) {
    if constexpr (requires { device.fast_cholesky_upper(h); }) {
        if (device.fast_cholesky_upper(h)) return;
    }
    device.cholesky_upper(h);
}

const FactorCeilings& factor_ceilings(Index n) {
    static std::map<Index, FactorCeilings> known;
    if (const auto found = known.find(n); found != known.end()) return found->second;

    const Index columns = std::min<Index>(n, 4096);
    auto h = backend().workspace<Scalar>(n, n);
    FactorCeilings ceilings = {std::numeric_limits<double>::infinity(), 0};
    for (int i = 0; i < 3; ++i) {  // each time anew, for it is done in place; the first warms up
        const auto x = random_on<Scalar>(backend(), 256, n, 0, 3);
        backend().set_zero(h.view());
        backend().accumulate_gram(x.view(), {}, h.view());
        backend().set_diagonal(h.view(), std::vector<Scalar>(std::size_t(n), Scalar(512)));
        const double seconds = best_seconds(1, [&] { factor(backend(), h.view()); });
        if (i > 0) ceilings.cholesky_seconds = std::min(ceilings.cholesky_seconds, seconds);
    }
    auto x = random_on<Scalar>(backend(), n, columns, 0, 4);
    const double seconds = best_seconds(3, [&] { backend().solve_upper(std::as_const(h).view(), x.view()); });
    ceilings.solve_rate = double(n) * double(n) * double(columns) / seconds;
    return known[n] = ceilings;
}

}  // namespace bench
