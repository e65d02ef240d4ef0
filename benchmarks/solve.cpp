/// Whole solves: damping, factorization, target, grid fits, sweep and codes, groups of 128, beside the
/// ceilings of the same run.
///
/// Operations needed: GPTQ n^3/3 + m n^2, GPTAQ and ResComp 2/3 n^3 + 2 m n^2, QEP n^3/3 + m n^2 and the lesser of
/// n^3 + 2 m n^2 and 3 m n^2.

#include "measure.hpp"

namespace {

using namespace bench;

template <class M>
Operations operations(double m, Index in_features) {
    const double n = double(in_features);
    Operations needed = {.products = m * n * n, .factorizations = 1, .n = in_features};
    if (M::residuals == Residuals::OfColumnsBefore) {
        needed.products += m * n * n;
        needed.solves = n * n * n / 3;  // M = triu(D R^-T, strict)
    }
    if (M::residuals == Residuals::OfAllColumns) {
        needed.products += 2 * m * n * n;
        needed.solves = std::min(m, n) * n * n;  // W M, M = D R^-T, from the cheaper side
    }
    return needed;
}

/// Values of `clip`: no search, and a search for the scales by norm or by loss.
enum Search { none, by_norm, by_loss };

ClipSearch search_of(std::int64_t search) {
    return {.enabled = search != none, .search = search == by_loss ? ScaleSearch::Loss : ScaleSearch::Norm};
}

template <class M, class G>
void solve_onto(const G& grid, Index group_size, Device& device, benchmark::State& state) {
    const Index m = state.range(0);
    const Index n = state.range(1);
    const auto moments = random_moments(device, n, M::residuals != Residuals::None);
    const auto w = random_on<Input>(device, m, n, 0, 3);
    SolverOptions options;
    options.group_size = group_size;
    measure(
        state, operations<M>(double(m), n),
        [&] {
            moments.forget_factorization();
            const Solver<M, Scalar, Device> solver(moments, options);
            const auto q = compiled::quantize(solver, MatrixView<const Input>(w.view()), grid);
            if (!q) state.SkipWithError(to_string(q.report.status).data());
        },
        device);
}

template <class M>
void solve_on(Device& device, benchmark::State& state) {
    const IntegerGrid grid{.bits = int(state.range(2)), .clip = search_of(state.range(3))};
    solve_onto<M>(grid, SolverOptions().group_size, device, state);
}

void product(benchmark::State& state) {
    const double n = double(state.range(0));
    for (auto _ : state) state.SetIterationTime(2 * n * n * n / product_rate<Scalar>());
    state.counters[rate_name] = product_rate<Scalar>() / rate_unit;
}

void cholesky(benchmark::State& state) {
    const double n = double(state.range(0));
    const double seconds = factor_ceilings(state.range(0)).cholesky_seconds;
    for (auto _ : state) state.SetIterationTime(seconds);
    state.counters[rate_name] = n * n * n / 3 / seconds / rate_unit;
}

void triangular_solve(benchmark::State& state) {
    const double n = double(state.range(0));
    const double rate = factor_ceilings(state.range(0)).solve_rate;
    for (auto _ : state) state.SetIterationTime(n * n * n / rate);
    state.counters[rate_name] = rate / rate_unit;
}

void ceiling_sizes(benchmark::internal::Benchmark* b) {
    b->Arg(4096)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(product)->Apply(ceiling_sizes);
BENCHMARK(cholesky)->Apply(ceiling_sizes);
BENCHMARK(triangular_solve)->Apply(ceiling_sizes);

void sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond);
#ifdef __CUDACC__
    for (const auto& [m, n] : {std::pair{4096, 4096}, {14336, 4096}, {4096, 14336}}) b->Args({m, n, 4, 0});
    for (const Search search : {by_norm, by_loss}) b->Args({4096, 4096, 4, search})->Iterations(7);
#else
    for (const int bits : {2, 3, 4}) {
        for (const auto& [m, n] : {std::pair{1024, 1024}, {4096, 4096}, {4096, 11008}, {11008, 4096}})
            b->Args({m, n, bits, 0});
    }
    b->Args({2048, 2048, 4, 0})
        ->Args({4096, 14336, 4, 0})
        ->Args({8192, 8192, 4, 0})
        ->Args({4096, 4096, 4, by_norm})
        ->Args({4096, 4096, 4, by_loss});
#endif
}

template <class M>
void solve(benchmark::State& state) {
    solve_on<M>(backend(), state);
}

BENCHMARK_TEMPLATE(solve, GPTQ)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, GPTAQ)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, ResidualComp)->Apply(sizes);
BENCHMARK_TEMPLATE(solve, QEP)->Apply(sizes);

/// K-quants of `bits`, and integers with a zero in groups of as many columns and in groups of 128.
template <Index Columns>
void k_quants(benchmark::State& state) {
    const KQuantGrid<Columns> grid{.bits = int(state.range(2)), .clip = search_of(state.range(3))};
    solve_onto<GPTQ>(grid, Columns, backend(), state);
}
template <Index Columns>
void integers(benchmark::State& state) {
    const IntegerGrid grid{
        .bits = int(state.range(2)), .symmetry = Symmetry::None, .clip = search_of(state.range(3))};
    solve_onto<GPTQ>(grid, Columns, backend(), state);
}
/// K-quants have no search by norm: each fit looks through as many ranges.
template <Search Other, int... Bits>
void searched_sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"out", "in", "bits", "clip"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);
    for (const int bits : {Bits...}) {
        for (const Search search : {Other, by_loss}) b->Args({4096, 4096, bits, search});
    }
}

BENCHMARK_TEMPLATE(k_quants, 16)->Apply(searched_sizes<none, 2, 3, 6>);
BENCHMARK_TEMPLATE(integers, 16)->Apply(searched_sizes<by_norm, 2, 3, 6>);
BENCHMARK_TEMPLATE(k_quants, 32)->Apply(searched_sizes<none, 4, 5>);
BENCHMARK_TEMPLATE(integers, 32)->Apply(searched_sizes<by_norm, 4, 5>);
BENCHMARK_TEMPLATE(integers, 128)->Apply(searched_sizes<by_norm, 2, 3, 4, 5, 6>);

}  // namespace

BENCHMARK_MAIN();
