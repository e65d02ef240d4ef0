#include "solve.cpp"

namespace {

/// Tensor cores in the large products, and the part of the objective that this costs.
template <class M>
void solve_tf32(benchmark::State& state) {
    static Device tf32({.precision = Precision::tf32});
    solve_on<M>(tf32, state);
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto objective = [&](Device& device) {
        const auto moments = random_moments(device, n, M::residuals != Residuals::None);
        const auto w = random_on<Input>(device, m, n, 0, 3);
        SolverOptions options;
        options.report_objective = true;
        const auto q = Solver<M, Scalar, Device>(moments, options).quantize(w.view(), IntegerGrid{.bits = 4});
        return q.report.achieved().value();
    };
    state.counters["objective_cost"] = objective(tf32) / objective(backend()) - 1;
}

void tf32_sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond);
    b->Args({4096, 4096, 4, 0})->Args({4096, 14336, 4, 0})->Iterations(5);
}

/// The down projection of a model of 405 billion parameters.
void largest(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond);
    b->Args({16384, 53248, 4, 0})->Iterations(1);
}

BENCHMARK_TEMPLATE(solve_tf32, GPTQ)->Apply(tf32_sizes);
BENCHMARK_TEMPLATE(solve_tf32, QEP)->Apply(tf32_sizes);
BENCHMARK_TEMPLATE(solve, GPTAQ)->Name("solve<GPTAQ>")->Apply(largest);
BENCHMARK_TEMPLATE(solve, QEP)->Name("solve<QEP>")->Apply(largest);

}  // namespace
