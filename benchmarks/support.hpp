#pragma once

#include <benchmark/benchmark.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#ifdef __CUDACC__
#include <residua/cuda.hpp>
#endif

#include "../examples/support/solvers.hpp"
#include "random.hpp"

/// What every benchmark is made of. The same sources serve the CPU and CUDA backends.
namespace bench {

using namespace residua;

using Scalar = float;
#ifdef __CUDACC__
using Device = CudaBackend;
using Input = bfloat16;  ///< of weights and activations, which are where the backend computes
inline constexpr const char* rate_name = "TFLOP/s";
inline constexpr double rate_unit = 1e12;
#else
using Device = EigenBackend;
using Input = float;
inline constexpr const char* rate_name = "GFLOP/s";
inline constexpr double rate_unit = 1e9;
#endif

inline Device& backend() {
    static Device instance;
    return instance;
}

/// Peak memory in MiB since reset_peak_memory(): what the backend holds on the device, or the whole process
/// (0 where /proc does not tell).
inline double peak_memory(Device& device = backend()) {
#ifdef __CUDACC__
    return double(device.memory().peak_bytes()) / (1 << 20);
#else
    (void)device;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
    }
    return 0;
#endif
}
inline void reset_peak_memory(Device& device = backend()) {
#ifdef __CUDACC__
    device.memory().reset_peak();
#else
    (void)device;
#ifdef __GLIBC__
    malloc_trim(0);  // what was freed before is not this measurement's
#endif
    std::ofstream("/proc/self/clear_refs") << 5;
#endif
}

/// Random values where the backend computes. Every few thousand rows they repeat.
template <class T>
auto random_on(Device& device, Index rows, Index cols, Scalar carry, std::uint64_t seed) {
    auto matrix = device.template allocate<T>(rows, cols);
    const Index most = std::min(rows, std::max<Index>(256, (Index(1) << 25) / cols));
    const std::vector<T> values = random_matrix<T>(most, cols, carry, seed);
    for (Index r = 0; r < rows; r += most) {
        if (rows - r >= most) {
            device.write(values, matrix.view().row_range(r, most));
        } else {
            const std::vector<T> rest(values.begin(), values.begin() + (rows - r) * cols);
            device.write(rest, matrix.view().row_range(r, rows - r));
        }
    }
    return matrix;
}

/// Moments of 2048 correlated tokens whose reference inputs deviate by a tenth.
inline Moments<Scalar, Device> random_moments(Device& device, Index n, bool reference = true) {
    constexpr Index tokens = 2048;
    const std::vector<Input> x = random_matrix<Input>(tokens, n, Scalar(0.8), 1);
    const MatrixView<const Input> x_view(x.data(), tokens, n);
    Moments<Scalar, Device> moments(device, n);
    if (!reference) {
        compiled::accumulate(moments, x_view, {});
        return moments;
    }
    std::vector<Input> x_fp = random_matrix<Input>(tokens, n, Scalar(0.8), 2);
    for (std::size_t i = 0; i < x.size(); ++i) x_fp[i] = Input(float(x[i]) + 0.1f * float(x_fp[i]));
    compiled::accumulate(moments, x_view, MatrixView<const Input>(x_fp.data(), tokens, n));
    return moments;
}
inline Moments<Scalar, Device> random_moments(Index n) { return random_moments(backend(), n); }

}  // namespace bench
