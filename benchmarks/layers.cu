// Times whole layers on the GPU, and the ceilings of the card in the same run.
//
//   layers ceilings                       products, factorization, triangular solves, copy
//   layers accumulate <n>                 2048 bf16 tokens into H, and into H and D
//   layers solve <rule> <m> <n> [option]...
//       rule: gptq gptaq rescomp shifted; options: tf32 clip act objective reps=<k> tokens=<k>
//
// Medians of warm runs between two events.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "residua/cuda/cuda.hpp"
#include "residua/solver/solver.hpp"

namespace {

using namespace residua;
using Gpu = CudaBackend;

__device__ float uniform(std::uint64_t seed) {
    seed ^= seed >> 33;
    seed *= 0xff51afd7ed558ccdull;
    seed ^= seed >> 33;
    seed *= 0xc4ceb9fe1a85ec53ull;
    seed ^= seed >> 33;
    return (static_cast<float>(seed >> 40) + 0.5f) * 0x1p-24f;
}

__device__ float normal(std::uint64_t seed) {
    return sqrtf(-2.0f * logf(uniform(2 * seed))) * cospif(2.0f * uniform(2 * seed + 1));
}

/// Neighbouring columns are correlated, and columns differ in size.
struct Activations {
    MatrixView<bfloat16> x, x_fp;
    std::uint64_t seed;
    __device__ void operator()(Index t, Index j) const {
        const std::uint64_t id = seed + std::uint64_t(t) * 1000003u;
        const float size = 0.25f + 2.0f * uniform(std::uint64_t(j) + 77) * uniform(std::uint64_t(j) + 777);
        const float value = size * (normal(id + j) + normal(id + 500009u + j / 8));
        x(t, j) = bfloat16(value);
        if (x_fp.data) x_fp(t, j) = bfloat16(value + 0.1f * size * normal(id + 900001u + j));
    }
};

struct Weights {
    MatrixView<bfloat16> w;
    __device__ void operator()(Index r, Index j) const {
        w(r, j) = bfloat16(0.02f * normal(std::uint64_t(r) * 65537u + j + (1ull << 40)));
    }
};

template <class Body>
double median_ms(Gpu& gpu, int repetitions, Body body) {
    body();
    std::vector<double> times;
    for (int i = 0; i < repetitions; ++i) {
        const auto start = gpu.timestamp();
        body();
        const auto stop = gpu.timestamp();
        times.push_back(1e3 * gpu.seconds(start, stop));
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

DeviceMatrix<bfloat16> random_weights(Gpu& gpu, Index m, Index n) {
    auto w = gpu.allocate<bfloat16>(m, n);
    residua::cuda::visit(gpu.stream(), m, n, Weights{w.view()});
    return w;
}

void add_tokens(Gpu& gpu, Moments<float, Gpu>& moments, Index tokens, bool reference) {
    const Index n = moments.in_features();
    const Index batch = 2048;
    auto x = gpu.allocate<bfloat16>(batch, n);
    auto x_fp = gpu.allocate<bfloat16>(reference ? batch : 0, n);
    for (Index t = 0; t < tokens; t += batch) {
        residua::cuda::visit(gpu.stream(), batch, n,
                             Activations{x.view(), x_fp.view(), std::uint64_t(t) << 32});
        if (reference) {
            moments.accumulate(std::as_const(x).view(), std::as_const(x_fp).view());
        } else {
            moments.accumulate(std::as_const(x).view());
        }
    }
}

double product_tflops(Precision precision) {
    Gpu gpu({.precision = precision});
    const Index n = 8192;
    auto a = gpu.allocate<float>(n, n);
    auto c = gpu.allocate<float>(n, n);
    auto w = random_weights(gpu, n, n);
    residua::cuda::transpose(gpu.stream(), std::as_const(w).view(), nullptr, nullptr, a.view());
    const double ms = median_ms(gpu, 10, [&] {
        gpu.multiply(1.0f, Transpose::No, std::as_const(a).view(), std::as_const(a).view(), 0.0f, c.view());
    });
    return 2e-9 * double(n) * double(n) * double(n) / ms;
}

void ceilings() {
    const double fp32 = product_tflops(Precision::fp32);
    std::printf("gemm 8192: fp32 %.1f TFLOP/s, tf32 %.1f TFLOP/s\n", fp32, product_tflops(Precision::tf32));
    Gpu gpu;
    {
        const Index n = 8192;
        auto a = random_weights(gpu, n, n);
        auto c = gpu.allocate<float>(n, n);
        const float one = 1;
        const float zero = 0;
        const double ms = median_ms(gpu, 10, [&] {
            cublasGemmEx(gpu.blas(), CUBLAS_OP_N, CUBLAS_OP_T, 8192, 8192, 8192, &one, a.view().data,
                         CUDA_R_16BF, 8192, a.view().data, CUDA_R_16BF, 8192, &zero, c.view().data,
                         CUDA_R_32F, 8192, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
        });
        auto d = gpu.allocate<float>(n, n);
        const double copy = median_ms(gpu, 10, [&] { gpu.copy(std::as_const(c).view(), d.view()); });
        std::printf("gemm 8192: bf16 %.1f TFLOP/s; copy %.2f TB/s\n", 2e-9 * 8192.0 * 8192 * 8192 / ms,
                    8e-9 * double(n) * double(n) / copy);
    }
    for (const Index n : {Index(4096), Index(14336)}) {
        Moments<float, Gpu> moments(gpu, n);
        add_tokens(gpu, moments, 2048, false);
        auto h = gpu.allocate<float>(n, n);
        auto x = gpu.allocate<float>(n, n);
        const auto diagonal = gpu.diagonal(moments.gram());
        auto shifted = diagonal;
        for (float& d : shifted) d += 0.1f * diagonal[0];
        const auto reset = [&] {
            gpu.copy(moments.gram(), h.view());
            gpu.set_diagonal(h.view(), shifted);
        };
        const double resetting = median_ms(gpu, 3, reset);
        for (const auto fill : {CUBLAS_FILL_MODE_UPPER, CUBLAS_FILL_MODE_LOWER}) {
            std::size_t bytes = 0;
            std::size_t host_bytes = 0;
            cusolverDnXpotrf_bufferSize(gpu.solver(), nullptr, fill, n, CUDA_R_32F, h.view().data, n,
                                        CUDA_R_32F, &bytes, &host_bytes);
            auto work = gpu.allocate<Code>(1, Index(bytes) + 4);
            std::vector<char> host(host_bytes);
            const double ms =
                median_ms(gpu, 3,
                          [&] {
                              reset();
                              cusolverDnXpotrf(gpu.solver(), nullptr, fill, n, CUDA_R_32F, h.view().data, n,
                                               CUDA_R_32F, work.view().data, bytes, host.data(), host_bytes,
                                               reinterpret_cast<int*>(work.view().data + bytes / 4 * 4));
                          }) -
                resetting;
            std::printf("potrf %s n=%td: %.2f ms, %.1f TFLOP/s, workspace %.1f MB + %zu\n",
                        fill == CUBLAS_FILL_MODE_UPPER ? "upper" : "lower", n, ms,
                        1e-9 / 3 * double(n) * double(n) * double(n) / ms, double(bytes) * 1e-6, host_bytes);
        }
        reset();
        const bool good = gpu.cholesky_upper(h.view());
        const double chol = median_ms(gpu, 3,
                                      [&] {
                                          reset();
                                          gpu.cholesky_upper(h.view());
                                      }) -
                            resetting;
        reset();
        gpu.cholesky_upper(h.view());
        gpu.copy(moments.gram(), x.view());
        const double trsm = median_ms(gpu, 3, [&] { gpu.solve_upper(std::as_const(h).view(), x.view()); });
        const double trsm_t =
            median_ms(gpu, 3, [&] { gpu.solve_upper_transposed(std::as_const(h).view(), x.view()); });
        std::printf(
            "n=%td: cholesky_upper %.2f ms (%s), solve n rhs %.2f ms, transposed %.2f ms (%.1f TFLOP/s)\n", n,
            chol, good ? "ok" : "FAILED", trsm, trsm_t, 1e-9 * double(n) * double(n) * double(n) / trsm);
        for (const Index b : {Index(128), Index(256), Index(512), Index(1024)}) {
            const double t = median_ms(gpu, 5, [&] {
                gpu.solve_upper(std::as_const(h).view().block(0, 0, b, b), x.view().block(0, 0, b, n));
            });
            const double tt = median_ms(gpu, 5, [&] {
                gpu.solve_upper_transposed(std::as_const(h).view().block(0, 0, b, b),
                                           x.view().block(0, 0, b, n));
            });
            const double g = median_ms(gpu, 5, [&] {
                gpu.multiply(-1.0f, Transpose::No, std::as_const(h).view().block(0, b, b, n - b),
                             MatrixView<const float>(x.view().block(b, 0, n - b, n)), 1.0f,
                             x.view().block(0, 0, b, n));
            });
            const double k = median_ms(gpu, 5, [&] {
                gpu.multiply(-1.0f, Transpose::Yes, std::as_const(h).view().block(0, b, b, n - b),
                             MatrixView<const float>(x.view().block(0, 0, b, n)), 1.0f,
                             x.view().block(b, 0, n - b, n));
            });
            const double flops = 2e-9 * double(b) * double(n - b) * double(n);
            std::printf(
                "n=%td block %td: solve %.3f ms, transposed %.3f ms; product into block %.3f ms (%.1f), from "
                "block %.3f ms (%.1f TFLOP/s)\n",
                n, b, t, tt, g, flops / g, k, flops / k);
        }
    }
}

void accumulate(Index n) {
    Gpu gpu;
    Moments<float, Gpu> moments(gpu, n);
    Moments<float, Gpu> both(gpu, n);
    const Index tokens = 2048;
    auto x = gpu.allocate<bfloat16>(tokens, n);
    auto x_fp = gpu.allocate<bfloat16>(tokens, n);
    residua::cuda::visit(gpu.stream(), tokens, n, Activations{x.view(), x_fp.view(), 5});
    const double h = median_ms(gpu, 20, [&] { moments.accumulate(std::as_const(x).view()); });
    const double hd =
        median_ms(gpu, 20, [&] { both.accumulate(std::as_const(x).view(), std::as_const(x_fp).view()); });
    const double flops = 1e-9 * double(n) * double(n) * double(tokens);
    std::printf(
        "accumulate n=%td, 2048 bf16 tokens: H %.3f ms (%.0f TFLOP/s needed), H and D %.3f ms (%.0f)\n", n, h,
        flops / h, hd, 3 * flops / hd);
}

struct Settings {
    bool tf32 = false, clip = false, act = false, objective = false;
    int repetitions = 5;
    Index tokens = 0;
};

template <class M>
void solve(Index m, Index n, const Settings& settings) {
    Gpu gpu({.precision = settings.tf32 ? Precision::tf32 : Precision::fp32});
    constexpr bool reference = M::target != Target::Original;
    Moments<float, Gpu> moments(gpu, n);
    add_tokens(gpu, moments, settings.tokens ? settings.tokens : (n + 4095) / 2048 * 2048, reference);
    const auto w = random_weights(gpu, m, n);
    const auto nothing = gpu.allocate<bfloat16>(1, n);
    const MatrixView<const bfloat16> none(nothing.view().data, 0, n);

    SolverOptions options;
    options.report_objective = settings.objective;
    if (settings.act) options.ordering = Ordering::Activation;
    const IntegerGrid grid{.bits = 4, .symmetry = Symmetry::None, .clip = {.enabled = settings.clip}};
    const Solver<M, float, Gpu> solver(moments, options);
    std::vector<double> total, factor, sweep;
    Report report;
    gpu.memory().reset_peak();
    for (int i = 0; i <= settings.repetitions; ++i) {
        if constexpr (reference) {
            moments.accumulate(none, none);
        } else {
            moments.accumulate(none);
        }
        const auto start = gpu.timestamp();
        const auto result = solver.quantize(w.view(), grid);
        const auto stop = gpu.timestamp();
        report = result.report;
        if (i == 0) continue;
        total.push_back(1e3 * gpu.seconds(start, stop));
        factor.push_back(1e3 * report.seconds.factorize);
        sweep.push_back(1e3 * report.seconds.sweep);
    }
    const auto median = [](std::vector<double> v) {
        std::sort(v.begin(), v.end());
        return v[v.size() / 2];
    };
    const double a = double(m);
    const double b = double(n);
    double flops = b * b * b / 3 + a * b * b;
    if (M::target == Target::Forwarded) flops += 2.0 / 3 * b * b * b + a * b * b;
    if (M::target == Target::Shifted) flops += std::min(4 * a * b * b, 2 * b * b * b + 2 * a * b * b);
    std::printf(
        "%-14s m=%-5td n=%-5td%s%s%s %9.2f ms = %.2f factorize + %.2f sweep, %5.1f TFLOP/s needed, peak %.2f "
        "GB, %s",
        M::name, m, n, settings.tf32 ? " tf32" : "", settings.clip ? " clip" : "", settings.act ? " act" : "",
        median(total), median(factor), median(sweep), 1e-9 * flops / median(total),
        1e-9 * double(gpu.memory().peak_bytes()), std::string(to_string(report.status)).c_str());
    if (report.objective) {
        std::printf(", objective %.6e", report.objective->symmetric);
        if (report.objective->asymmetric) std::printf(" / %.6e", *report.objective->asymmetric);
        std::printf(" (rtn %.6e)", report.round_to_nearest->symmetric);
    }
    std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "ceilings") {
        ceilings();
    } else if (mode == "accumulate" && argc == 3) {
        accumulate(std::atol(argv[2]));
    } else if (mode == "solve" && argc >= 5) {
        const std::string rule = argv[2];
        const Index m = std::atol(argv[3]);
        const Index n = std::atol(argv[4]);
        Settings settings;
        for (int i = 5; i < argc; ++i) {
            const std::string option = argv[i];
            settings.tf32 = settings.tf32 || option == "tf32";
            settings.clip = settings.clip || option == "clip";
            settings.act = settings.act || option == "act";
            settings.objective = settings.objective || option == "objective";
            if (option.starts_with("reps=")) settings.repetitions = std::atoi(option.c_str() + 5);
            if (option.starts_with("tokens=")) settings.tokens = std::atol(option.c_str() + 7);
        }
        if (rule == "gptq") solve<GPTQ>(m, n, settings);
        if (rule == "gptaq") solve<GPTAQ>(m, n, settings);
        if (rule == "rescomp") solve<ResidualComp>(m, n, settings);
        if (rule == "shifted") solve<ShiftedTarget>(m, n, settings);
    } else {
        std::fprintf(stderr, "layers ceilings | accumulate <n> | solve <rule> <m> <n> [option]...\n");
        return 2;
    }
    return 0;
}
