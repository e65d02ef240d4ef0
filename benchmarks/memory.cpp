/// Peak memory of a last solve, which takes the place of its moments: MiB in all, and as a multiple of what
/// must be there anyway: H, D where the method needs it, the weights and the codes.

#include "support.hpp"

namespace {

using namespace bench;

template <class M>
void quantize_and_consume(benchmark::State& state) {
    const Index n = state.range(0);
    constexpr bool reference = M::residuals != Residuals::None;
    constexpr Index tokens = 512;
    const std::vector<Scalar> w = random_matrix(n, n, 0, 3);
    SolverOptions options;
    for (auto _ : state) {
        Solver<M, Scalar, Device> solver(backend(), n, options);
        {
            const std::vector<Scalar> x = random_matrix(tokens, n, Scalar(0.8), 1);
            const MatrixView<const Scalar> view(x.data(), tokens, n);
            compiled::accumulate(solver, view, reference ? view : MatrixView<const Scalar>());
        }
        reset_peak_memory();
        const auto start = backend().timestamp();
        const auto q =
            compiled::quantize_and_consume(solver, MatrixView<const Scalar>(w.data(), n, n), IntegerGrid{});
        state.SetIterationTime(backend().seconds(start, backend().timestamp()));
        if (!q) state.SkipWithError(to_string(q.report.status).data());
    }
    const double elements = double(n) * double(n);
    const double needed = elements * (double(sizeof(Scalar)) * (reference ? 3 : 2) + 1) / (1 << 20);
    state.counters["needed_MiB"] = needed;
    state.counters["peak_MiB"] = peak_memory();
    state.counters["of_needed"] = peak_memory() / needed;
}

BENCHMARK_TEMPLATE(quantize_and_consume, GPTQ)
    ->Arg(8192)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(quantize_and_consume, GPTAQ)
    ->Arg(8192)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(quantize_and_consume, ResidualComp)
    ->Arg(8192)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
