#include "solve.cpp"

namespace {

/// Large products in another precision than by default, and what the objective rises by beside that of fp32.
template <class M, Precision P>
void solve_in(benchmark::State& state) {
    static Device device({.precision = P});
    static Device exact({.precision = Precision::fp32});
    solve_on<M>(device, state);
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto objective = [&](Device& solver_device) {
        const auto moments = random_moments(solver_device, n, M::residuals != Residuals::None);
        const auto w = random_on<Input>(solver_device, m, n, 0, 3);
        SolverOptions options;
        options.report_objective = true;
        const auto q = Solver<M, Scalar, Device>(moments, options).quantize(w.view(), IntegerGrid{.bits = 4});
        return q.report.achieved().value();
    };
    const double least = objective(exact);
    state.counters["objective_cost"] = (objective(device) - least) / std::abs(least);
}

void precision_sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond);
    b->Args({4096, 4096, 4, 0})->Args({4096, 14336, 4, 0})->Iterations(5);
}

/// The down projection of a model of 405 billion parameters.
void largest(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond);
    b->Args({16384, 53248, 4, 0})->Iterations(1);
}

BENCHMARK_TEMPLATE(solve_in, GPTQ, Precision::split)->Apply(precision_sizes);
BENCHMARK_TEMPLATE(solve_in, GPTQ, Precision::fp32)->Apply(precision_sizes);
BENCHMARK_TEMPLATE(solve_in, GPTQ, Precision::tf32)->Apply(precision_sizes);
BENCHMARK_TEMPLATE(solve_in, QEP, Precision::split)->Apply(precision_sizes);
BENCHMARK_TEMPLATE(solve_in, QEP, Precision::fp32)->Apply(precision_sizes);
BENCHMARK_TEMPLATE(solve, GPTAQ)->Name("solve<GPTAQ>")->Apply(largest);
BENCHMARK_TEMPLATE(solve, QEP)->Name("solve<QEP>")->Apply(largest);

}  // namespace
