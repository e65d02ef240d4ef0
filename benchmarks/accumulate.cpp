/// Moments of 2048 tokens: H needs n^2 operations a token, D 2 n^2.

#include "measure.hpp"

namespace {

using namespace bench;

constexpr Index tokens = 2048;

template <Element In>
Operations operations(Index n, double products) {
    return {.inputs = products * double(tokens) * double(n * n), .input_rate = product_rate<In>(), .n = n};
}

template <Element In>
void accumulate_h(benchmark::State& state) {
    const Index n = state.range(0);
    const auto x = random_on<In>(backend(), tokens, n, Scalar(0.8), 1);
    Moments<Scalar, Device> moments(backend(), n);
    measure(state, operations<In>(n, 1), [&] { moments.accumulate(x.view()); });
}

template <Element In>
void accumulate_h_and_d(benchmark::State& state) {
    const Index n = state.range(0);
    const auto x = random_on<In>(backend(), tokens, n, Scalar(0.8), 1);
    const auto x_fp = random_on<In>(backend(), tokens, n, Scalar(0.8), 2);
    Moments<Scalar, Device> moments(backend(), n);
    measure(state, operations<In>(n, 3), [&] { moments.accumulate(x.view(), x_fp.view()); });
}

void sizes(benchmark::internal::Benchmark* b) {
#ifdef __CUDACC__
    b->Arg(4096)->Arg(14336)->Iterations(20);
#else
    b->Arg(1024)->Arg(4096)->Arg(11008);
#endif
    b->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_TEMPLATE(accumulate_h, float)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h, bfloat16)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h, float16)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h_and_d, float)->Apply(sizes);
BENCHMARK_TEMPLATE(accumulate_h_and_d, bfloat16)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
