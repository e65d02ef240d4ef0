/// Moments of 2048 tokens: H needs n^2 operations a token, D 2 n^2.

#include "support.hpp"

namespace {

using namespace bench;

constexpr Index tokens = 2048;

template <Element In>
std::vector<In> inputs(Index n, unsigned seed) {
    const std::vector<Scalar> values = random_matrix(tokens, n, Scalar(0.8), seed);
    return {values.begin(), values.end()};
}

template <Element In>
void accumulate_h(benchmark::State& state) {
    const Index n = state.range(0);
    const std::vector<In> x = inputs<In>(n, 1);
    Moments<Scalar, Device> moments(backend(), n);
    measure(state, double(tokens) * double(n * n),
            [&] { moments.accumulate(MatrixView<const In>(x.data(), tokens, n)); });
}

template <Element In>
void accumulate_h_and_d(benchmark::State& state) {
    const Index n = state.range(0);
    const std::vector<In> x = inputs<In>(n, 1);
    const std::vector<In> x_fp = inputs<In>(n, 2);
    Moments<Scalar, Device> moments(backend(), n);
    measure(state, 3.0 * double(tokens) * double(n * n), [&] {
        moments.accumulate(MatrixView<const In>(x.data(), tokens, n),
                           MatrixView<const In>(x_fp.data(), tokens, n));
    });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->Arg(1024)->Arg(4096)->Arg(11008)->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_TEMPLATE(accumulate_h, float)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h, bfloat16)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h, float16)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h_and_d, float)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h_and_d, bfloat16)->Apply(sizes);

}  // namespace
