/// Whole solves: damping, factorization, target, grid fits, sweep and codes, groups of 128.
///
/// Operations needed: GPTQ n^3/3 + m n^2, GPTAQ and ResComp n^3 + 2 m n^2, shifted target n^3/3 + m n^2 and
/// the lesser of 4 m n^2 and 2 n^3 + 2 m n^2.

#include "support.hpp"

namespace {

using namespace bench;

template <class M>
double operations(double m, double n) {
    const double factor = n * n * n / 3;
    const double recurrence = m * n * n;
    switch (M::target) {
        case Target::Forwarded:
            return 3 * factor + 2 * recurrence;
        case Target::Shifted:
            return factor + recurrence + std::min(4 * m * n * n, 2 * n * n * n + 2 * m * n * n);
        case Target::Original:
            break;
    }
    return factor + recurrence;
}

template <class M>
void solve(benchmark::State& state) {
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto moments = random_moments(n);
    const auto w = upload(random_matrix(m, n, 0, 3), m, n);
    const IntegerGrid grid{.bits = int(state.range(2)), .clip = {.enabled = state.range(3) != 0}};
    SolverOptions options;
    options.report_objective = false;
    measure(state, operations<M>(double(m), double(n)), [&] {
        moments.forget_factorization();
        const auto q = Solver<M, Scalar, Device>(moments, options).quantize(w.view(), grid);
        if (!q) state.SkipWithError(to_string(q.report.status).data());
    });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"});
    for (const int bits : {2, 3, 4}) {
        for (const auto& [m, n] : {std::pair{1024, 1024}, {4096, 4096}, {4096, 11008}, {11008, 4096}}) {
            b->Args({m, n, bits, 0});
        }
    }
    b->Args({2048, 2048, 4, 0})->Args({8192, 8192, 4, 0})->Args({4096, 4096, 4, 1});
    b->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_TEMPLATE(solve, GPTQ)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, GPTAQ)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, ResidualComp)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, ShiftedTarget)->Apply(sizes);

}  // namespace
