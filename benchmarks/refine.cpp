/// Refinement on a factorization that is there, groups of 128: what it adds to a solve, and one part of it.
///
///     start         E, its objective and half of E H: m n^2 operations
///     sweep         over all columns, scales as they are: m n^2
///     refit         what refitting scales adds to a sweep: m n 128
///     gptq          a GPTQ solve without factorization, to compare with: m n^2
///
/// The time is that of two rounds, a start and four sweeps with refits.

#include "support.hpp"

namespace {

using namespace bench;

void refine(benchmark::State& state) {
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto moments = random_moments(n);
    const auto w = random_on<Scalar>(backend(), m, n, 0, 3);
    const MatrixView<const Scalar> weights = w.view();
    const auto report = [&](int sweeps, bool refit) {
        SolverOptions options;
        options.refinement = {.rounds = sweeps, .sweeps_per_round = 1, .refit_scales = refit, .tolerance = 0};
        const Solver<GPTQ, Scalar, Device> solver(moments, options);
        return compiled::quantize(solver, weights, IntegerGrid{}).report.seconds;
    };
    report(1, true);  // factored, kernels loaded
    for (auto _ : state) {
        // the best of interleaved runs: differences of them are to be taken
        double gptq = 1e30, two = 1e30, four = 1e30, two_refits = 1e30, four_refits = 1e30;
        for (int i = 0; i < 5; ++i) {
            gptq = std::min(gptq, report(0, false).sweep);
            two = std::min(two, report(2, false).refine);
            four = std::min(four, report(4, false).refine);
            two_refits = std::min(two_refits, report(2, true).refine);
            four_refits = std::min(four_refits, report(4, true).refine);
        }
        const double sweep = (four - two) / 2;
        state.SetIterationTime(four_refits);
        state.counters["gptq_ms"] = 1e3 * gptq;
        state.counters["start_ms"] = 1e3 * (two - 2 * sweep);
        state.counters["sweep_ms"] = 1e3 * sweep;
        state.counters["refit_ms"] = 1e3 * ((four_refits - two_refits) / 2 - sweep);
    }
}

BENCHMARK(refine)
    ->ArgNames({"out", "in"})
    ->Args({1024, 1024})
    ->Args({4096, 4096})
    ->Args({4096, 11008})
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
