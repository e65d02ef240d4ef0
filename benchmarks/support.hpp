#pragma once

#include <benchmark/benchmark.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#ifdef __CUDACC__
#include <residua/cuda/cuda.hpp>
#include <residua/solver/solver.hpp>
#else
#include <residua/residua.hpp>
#endif

/// What every benchmark prints beside its time: GFLOP/s of the operations that the algorithm needs, their
/// share of the matrix product's rate in this run, and peak memory. The same sources serve the CPU and CUDA
/// backends.
namespace bench {

using namespace residua;

#ifdef __CUDACC__
using Device = CudaBackend;
#else
using Device = EigenBackend;
#endif
using Scalar = float;

inline Device& backend() {
    static Device instance;
    return instance;
}

/// FLOP/s of a large product on this backend, the best of five.
inline double gemm_peak() {
    static const double peak = [] {
        constexpr Index n = 3072;
        std::mt19937 random(1);
        std::uniform_real_distribution<Scalar> uniform(-1, 1);
        std::vector<Scalar> values(std::size_t(n * n));
        for (Scalar& v : values) v = uniform(random);
        auto a = backend().workspace<Scalar>(n, n);
        auto x = backend().workspace<Scalar>(n, n);
        auto c = backend().workspace<Scalar>(n, n);
        backend().write(values, a.view());
        backend().write(values, x.view());
        double best = 1e30;
        for (int i = 0; i < 5; ++i) {
            const auto start = backend().timestamp();
            backend().multiply(Scalar(1), Transpose::No, std::as_const(a).view(), std::as_const(x).view(),
                               Scalar(0), c.view());
            best = std::min(best, backend().seconds(start, backend().timestamp()));
        }
        return 2.0 * n * n * n / best;
    }();
    return peak;
}

/// Peak resident memory of the process in MiB since reset_peak_memory(); 0 where /proc does not tell.
inline double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
    }
    return 0;
}
inline void reset_peak_memory() {
#ifdef __GLIBC__
    malloc_trim(0);  // what was freed before is not this measurement's
#endif
    std::ofstream("/proc/self/clear_refs") << 5;
}

/// Host values with the given spread around a random state that carries over from one column to the next, as
/// neighbouring activations are correlated in real layers.
inline std::vector<Scalar> random_matrix(Index rows, Index cols, Scalar carry, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<Scalar> uniform(-1, 1);
    std::vector<Scalar> values(std::size_t(rows * cols));
    Scalar state = 0;
    for (Scalar& v : values) v = state = carry * state + uniform(random);
    return values;
}

/// Values where the backend computes.
inline auto upload(const std::vector<Scalar>& values, Index rows, Index cols) {
    auto matrix = backend().allocate<Scalar>(rows, cols);
    backend().write(values, matrix.view());
    return matrix;
}

/// Moments of 2048 correlated tokens whose reference inputs deviate by a tenth.
inline Moments<Scalar, Device> random_moments(Index n) {
    constexpr Index tokens = 2048;
    const std::vector<Scalar> x = random_matrix(tokens, n, Scalar(0.8), 1);
    std::vector<Scalar> x_fp = random_matrix(tokens, n, Scalar(0.8), 2);
    for (std::size_t i = 0; i < x.size(); ++i) x_fp[i] = x[i] + Scalar(0.1) * x_fp[i];
    Moments<Scalar, Device> moments(backend(), n);
    moments.accumulate(MatrixView<const Scalar>(x.data(), tokens, n),
                       MatrixView<const Scalar>(x_fp.data(), tokens, n));
    return moments;
}

/// Runs `work` once per iteration by the backend's own clock, which waits for the work to be done.
template <class Work>
void measure(benchmark::State& state, double operations, Work work) {
    gemm_peak();
#ifdef __CUDACC__
    work();  // kernels are loaded when they are first launched
#endif
    reset_peak_memory();
    double seconds = 0;
    for (auto _ : state) {
        const auto start = backend().timestamp();
        work();
        const double elapsed = backend().seconds(start, backend().timestamp());
        state.SetIterationTime(elapsed);
        seconds += elapsed;
    }
    const double rate = operations * double(state.iterations()) / seconds;
    state.counters["GFLOP/s"] = rate / 1e9;
    state.counters["of_gemm"] = rate / gemm_peak();
    state.counters["peak_MiB"] = peak_memory();
}

}  // namespace bench

BENCHMARK_MAIN();
