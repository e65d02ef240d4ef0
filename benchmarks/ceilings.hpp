#pragma once

#include <limits>
#include <map>

#include "support.hpp"

/// What bounds a solve: the rates of the matrix product, the factorization and the triangular solve of this
/// backend (Eigen, or cuBLAS and cuSOLVER), measured once in each run.
namespace bench {

/// Operations that an algorithm needs, by the ceiling that they meet.
struct Operations {
    double products = 0;  ///< in matrix products and in the recurrence
    double inputs = 0;    ///< in matrix products of activations, at input_rate
    double input_rate = 0;
    double solves = 0;          ///< in triangular solves with an (n, n) factor
    double factorizations = 0;  ///< of a Cholesky factorization of (n, n)
    Index n = 0;

    double all() const { return products + inputs + solves + factorizations * double(n * n) * double(n) / 3; }
};

template <class Work>
double best_seconds(int repetitions, Work work) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repetitions; ++i) {
        const auto start = backend().timestamp();
        work();
        best = std::min(best, backend().seconds(start, backend().timestamp()));
    }
    return best;
}

/// FLOP/s of a large product of matrices of In, summed in Scalar. On a CPU 16-bit inputs are converted first.
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
                    residua::cuda::check(
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

/// Seconds of a Cholesky factorization of (n, n), and FLOP/s of a triangular solve with the factor.
struct FactorCeilings {
    double cholesky_seconds;
    double solve_rate;
};

inline const FactorCeilings& factor_ceilings(Index n) {
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
        const double seconds = best_seconds(1, [&] { backend().cholesky_upper(h.view()); });
        if (i > 0) ceilings.cholesky_seconds = std::min(ceilings.cholesky_seconds, seconds);
    }
    auto x = random_on<Scalar>(backend(), n, columns, 0, 4);
    const double seconds = best_seconds(3, [&] { backend().solve_upper(std::as_const(h).view(), x.view()); });
    ceilings.solve_rate = double(n) * double(n) * double(columns) / seconds;
    return known[n] = ceilings;
}

/// Seconds that `operations` take at the rates of the ceilings, one after the other.
inline double floor_seconds(const Operations& operations) {
    double seconds = operations.products / product_rate<Scalar>();
    if (operations.inputs > 0) seconds += operations.inputs / operations.input_rate;
    if (operations.factorizations > 0)
        seconds += operations.factorizations * factor_ceilings(operations.n).cholesky_seconds;
    if (operations.solves > 0) seconds += operations.solves / factor_ceilings(operations.n).solve_rate;
    return seconds;
}

}  // namespace bench
