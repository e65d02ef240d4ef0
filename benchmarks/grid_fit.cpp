/// Fits of groups of 128 weights, one comparison a weight, or 80 roundings a weight with the clip search.

#include "measure.hpp"

namespace {

using namespace bench;

void grid_fit(benchmark::State& state) {
    const Index m = state.range(0);
    const Index n = state.range(1);
    const std::vector<Scalar> w = random_matrix(m, n, 0, 3);
    const IntegerGrid grid{.bits = int(state.range(2)), .clip = {.enabled = state.range(3) != 0}};
    SolverOptions options;
    options.group_size = resolve_group_size<IntegerGrid>(options.group_size);
    options.static_groups = true;
    const std::vector<Index> order = detail::natural_order(n);
    const detail::GroupLayout groups = detail::group_layout(order, options);
    auto columns = backend().workspace<Scalar>(n, m);
    auto scales = backend().workspace<Scalar>(groups.count, m);
    auto zeros = backend().workspace<Scalar>(groups.count, m);
    auto flag = backend().allocate<Code>(1, 1);
    backend().load_columns(MatrixView<const Scalar>(w.data(), m, n), order, columns.view(), flag.view().data);
    measure(state, {.products = double(m * n) * grid.clip.candidates()}, [&] {
        backend().fit(grid, std::as_const(columns).view(), {}, groups.members, scales.view(), zeros.view());
    });
}

BENCHMARK(grid_fit)
    ->ArgNames({"out", "in", "bits", "clip"})
    ->ArgsProduct({{1024}, {1024}, {2, 3, 4}, {0, 1}})
    ->ArgsProduct({{4096}, {4096}, {2, 3, 4}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
