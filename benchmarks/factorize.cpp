/// H = R R' needs n^3/3 operations, the strict upper triangle of M = D R^-T, which GPTAQ and ResComp read, n^3/3,
/// and all of it, which QEP reads, n^3.

#include "measure.hpp"

namespace {

using namespace bench;

/// Moments factored anew, and what `derive` asks of the factorization; `solves` n^3 operations for it.
template <class Derive>
void factorize(benchmark::State& state, double solves, Derive derive) {
    const Index n = state.range(0);
    const auto moments = random_moments(n);
    const FactorizationKey key{SolverOptions{}};
    const double cube = double(n) * double(n * n);
    measure(state, {.solves = solves * cube, .factorizations = 1, .n = n}, [&] {
        const Factorization<Scalar, Device> f(backend(), moments.gram(), moments.cross(), key);
        benchmark::DoNotOptimize(derive(f).data);
    });
}

void factor(benchmark::State& state) {
    factorize(state, 0, [](const auto& f) { return f.factor(); });
}
void residuals_before(benchmark::State& state) {
    factorize(state, 1.0 / 3, [](const auto& f) { return f.residuals_before(); });
}
void residuals(benchmark::State& state) {
    factorize(state, 1, [](const auto& f) { return f.residuals(); });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->Arg(1024)->Arg(4096)->Arg(8192)->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(factor)->Name("factorize")->Apply(sizes);
BENCHMARK(residuals_before)->Name("factorize_and_residuals_before")->Apply(sizes);
BENCHMARK(residuals)->Name("factorize_and_residuals")->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
