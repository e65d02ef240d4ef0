/// The Hadamard transform of rows on the GPU, beside a copy of the same matrix: bytes read and written per
/// second. The floor is the copy.

#include <type_traits>

#include "support.hpp"

namespace {

using namespace bench;

template <class T, class Work>
void run(benchmark::State& state, Work work) {
    const Index rows = state.range(0);
    const Index n = state.range(1);
    // sets of matrices that no cache holds
    std::vector<DeviceMatrix<T>> x, y;
    const std::vector<T> values = [&] {
        std::vector<T> result;
        for (const Scalar v : random_matrix(rows, n, 0, 1)) result.push_back(T(v));
        return result;
    }();
    for (int set = 0; set < 3; ++set) {
        x.push_back(backend().allocate<T>(rows, n));
        y.push_back(backend().allocate<T>(rows, n));
        backend().write(values, x.back().view());
    }
    std::size_t set = 0;
    const auto once = [&] {
        work(std::as_const(x[set]).view(), y[set].view());
        set = (set + 1) % x.size();
    };
    constexpr int together = 9;  // launches, to hide the events' own time
    once();
    double seconds = 0;
    for (auto _ : state) {
        const auto start = backend().timestamp();
        for (int i = 0; i < together; ++i) once();
        const double elapsed = backend().seconds(start, backend().timestamp()) / together;
        state.SetIterationTime(elapsed);
        seconds += elapsed;
    }
    const double bytes = 2.0 * double(rows) * double(n) * sizeof(T);
    state.counters["GB/s"] = bytes * double(state.iterations()) / seconds / 1e9;
}

template <class T>
void copy(benchmark::State& state) {
    run<T>(state, [](MatrixView<const T> x, MatrixView<T> y) {
        residua::detail::cuda::check(cudaMemcpyAsync(y.data, x.data, std::size_t(x.rows * x.cols) * sizeof(T),
                                                     cudaMemcpyDeviceToDevice, backend().stream()),
                                     "cudaMemcpyAsync");
    });
}

template <class T, bool Signs>
void hadamard(benchmark::State& state) {
    HadamardOptions options;
    if (Signs) options.seed = 1;
    const residua::CudaHadamard transform(backend(), HadamardTransform(state.range(1), options));
    run<T>(state, [&](MatrixView<const T> x, MatrixView<T> y) { transform.apply(x, y); });
}

constexpr bool without_signs = false;
constexpr bool with_signs = true;

void shapes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgNames({"rows", "n"});
    for (const Index n : {4096, 5120, 8192, 9216, 11008, 13824, 14336, 28672}) benchmark->Args({2048, n});
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(copy<float>)
    ->Args({2048, 4096})
    ->Args({2048, 14336})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(copy<bfloat16>)
    ->Args({2048, 4096})
    ->Args({2048, 14336})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(hadamard<float, without_signs>)->Apply(shapes);
BENCHMARK(hadamard<float, with_signs>)->Apply(shapes);
BENCHMARK(hadamard<bfloat16, without_signs>)->Apply(shapes);
BENCHMARK(hadamard<bfloat16, with_signs>)->Apply(shapes);

}  // namespace

BENCHMARK_MAIN();
