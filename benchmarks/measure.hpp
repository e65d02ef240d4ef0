#pragma once

#include "ceilings.hpp"

namespace bench {

/// Runs `work` once per iteration by the backend's own clock, which waits for the work to be done, and
/// reports, of the median iteration: its time, operations per second, their share of the matrix product's
/// rate, and `of_ceiling`, the share of the time that the operations take at the rates of this run's
/// ceilings, `floor_ms`.
template <class Work>
void measure(benchmark::State& state, const Operations& operations, Work work, Device& device = backend()) {
    const double floor = floor_seconds(operations);
    const double product = product_rate<Scalar>();
#ifdef __CUDACC__
    work();  // kernels are loaded when they are first launched
#endif
    reset_peak_memory(device);
    std::vector<double> seconds;
    for (auto _ : state) {
        const auto start = device.timestamp();
        work();
        seconds.push_back(device.seconds(start, device.timestamp()));
        state.SetIterationTime(seconds.back());
    }
    std::nth_element(seconds.begin(), seconds.begin() + std::ptrdiff_t(seconds.size() / 2), seconds.end());
    const double median = seconds[seconds.size() / 2];
#ifndef __CUDACC__
    state.counters["threads"] = device.executor().threads();
#endif
    state.counters["median_ms"] = 1e3 * median;
    state.counters[rate_name] = operations.all() / median / rate_unit;
    state.counters["of_gemm"] = operations.all() / median / product;
    state.counters["floor_ms"] = 1e3 * floor;
    state.counters["of_ceiling"] = floor / median;
    state.counters["peak_MiB"] = peak_memory(device);
}

}  // namespace bench
