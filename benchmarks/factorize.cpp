/// H = R R' needs n^3/3 operations, the projection of GPTAQ and ResComp 2/3 n^3, the shared shift 2 n^3.

#include "measure.hpp"

namespace {

using namespace bench;

double cube(Index n) { return double(n) * double(n * n); }

void factorize(benchmark::State& state) {
    const Index n = state.range(0);
    const auto moments = random_moments(n);
    const FactorizationKey key{SolverOptions{}};
    measure(state, {.factorizations = 1, .n = n}, [&] {
        const Factorization<Scalar, Device> f(backend(), moments.gram(), moments.cross(), key);
        benchmark::DoNotOptimize(f.factor().data);
    });
}

void projection(benchmark::State& state) {
    const Index n = state.range(0);
    const auto moments = random_moments(n);
    const FactorizationKey key{SolverOptions{}};
    measure(state, {.solves = 2.0 / 3 * cube(n), .factorizations = 1, .n = n}, [&] {
        const Factorization<Scalar, Device> f(backend(), moments.gram(), moments.cross(), key);
        benchmark::DoNotOptimize(f.projection().data);
    });
}

void shift(benchmark::State& state) {
    const Index n = state.range(0);
    const auto moments = random_moments(n);
    const FactorizationKey key{SolverOptions{}};
    measure(state, {.solves = 2 * cube(n), .factorizations = 1, .n = n}, [&] {
        const Factorization<Scalar, Device> f(backend(), moments.gram(), moments.cross(), key);
        benchmark::DoNotOptimize(f.shift().data);
    });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->Arg(1024)->Arg(4096)->Arg(8192)->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(factorize)->Apply(sizes);
BENCHMARK(projection)->Name("factorize_and_projection")->Apply(sizes);
BENCHMARK(shift)->Name("factorize_and_shift")->Apply(sizes);

}  // namespace
