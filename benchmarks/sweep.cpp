/// The recurrence alone, on a factorization that is there: m n^2 operations, 2 m n^2 where columns before have
/// residuals.

#include "measure.hpp"

namespace {

using namespace bench;

template <class M>
void sweep(benchmark::State& state) {
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto moments = random_moments(n);
    const auto w = random_on<Scalar>(backend(), m, n, 0, 3);
    const IntegerGrid grid{.bits = int(state.range(2))};
    SolverOptions options;
    const Solver<M, Scalar, Device> solver(moments, options);
    const MatrixView<const Scalar> weights = w.view();
    compiled::quantize(solver, weights, grid);
    const double operations =
        (M::residuals == Residuals::OfColumnsBefore ? 2.0 : 1.0) * double(m) * double(n * n);
    measure(state, {.products = operations},
            [&] { benchmark::DoNotOptimize(compiled::quantize(solver, weights, grid)); });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits"})
        ->ArgsProduct({{1024}, {1024}, {2, 3, 4}})
        ->ArgsProduct({{4096}, {4096}, {2, 3, 4}});
    b->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_TEMPLATE(sweep, GPTQ)->Apply(sizes);
BENCHMARK_TEMPLATE(sweep, GPTAQ)->Apply(sizes);
BENCHMARK_TEMPLATE(sweep, ResidualComp)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
