/// The Hadamard transform of rows, and the rounding of activations, beside a copy of the same matrix by the
/// same threads: bytes read and written per second. The floor is the copy, two transfers of the matrix; the
/// additions are log2(2^k) + K/4 + 5 a value.

#include <benchmark/benchmark.h>

#include <cstring>
#include <residua/transform/activation_quantizer.hpp>
#include <residua/transform/hadamard.hpp>
#include <vector>

namespace {

using namespace residua;

constexpr Index rows = 2048;

/// Runs work(view) and counts one read and one write of the matrix.
template <class Work>
void run(benchmark::State& state, Work work) {
    const Index n = state.range(0);
    std::vector<float> x(static_cast<std::size_t>(rows * n));
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<float>(i * 2654435761u >> 13 & 255) - 127.5f;
    for (auto _ : state) {
        work(MatrixView<float>(x.data(), rows, n));
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * 2 * rows * n * Index(sizeof(float)));
}

void copy(benchmark::State& state) {
    std::vector<float> target(static_cast<std::size_t>(rows * state.range(0)));
    const Executor executor;
    run(state, [&](MatrixView<float> x) {
        executor(rows / 64, [&](Index task) {
            std::memcpy(target.data() + task * 64 * x.cols, x.row(task * 64),
                        std::size_t(64 * x.cols) * sizeof(float));
        });
    });
}

void hadamard(benchmark::State& state) {
    const HadamardTransform transform(state.range(0), {.seed = 1});
    run(state, [&](MatrixView<float> x) { transform.apply(x); });
}

void hadamard_left(benchmark::State& state) {
    const HadamardTransform transform(rows, {.seed = 1});
    run(state, [&](MatrixView<float> x) { transform.apply_left(x); });
}

void round_activations(benchmark::State& state) {
    const ActivationQuantizer quantizer = {.bits = 4, .clip_ratio = 0.9};
    run(state, [&](MatrixView<float> x) { quantizer.apply(x); });
}

void sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgName("n")->Unit(benchmark::kMillisecond)->UseRealTime();
    for (const Index n : {4096, 5120, 9216, 11008, 13824, 14336}) benchmark->Arg(n);
}

BENCHMARK(copy)->Apply(sizes);
BENCHMARK(hadamard)->Apply(sizes);
BENCHMARK(hadamard_left)->ArgName("n")->Arg(4096)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(round_activations)->ArgName("n")->Arg(4096)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
