#pragma once

#include "residua/backends/cuda/backend.hpp"
#include "residua/grids/group_size.hpp"
#include "residua/methods/method.hpp"

namespace residua {

namespace detail {

/// Of a Refiner and what it is handed.
inline Index refinement_bytes(const GroupLayout& groups, Index n, Index slab, Index elements,
                              const SolverOptions& options) {
    if (options.refinement.rounds == 0) return 0;
    const bool refits = options.refinement.refit_scales;
    const Index width = std::min({n, options.block_size, refined_columns});
    const Index group =
        options.group_size == SolverOptions::per_channel ? n : std::min(n, options.group_size);
    const bool wide = refits && group > width;
    const bool scattered =
        refits && options.static_groups && options.ordering == Ordering::Activation && groups.count > 1;
    Index per_row = n + std::max(std::min(n, refined_panel_columns), wide ? group : 0);  // of E H
    if (wide) per_row += 3 * group + 2 * groups.count;
    if (scattered) per_row += n;
    const Index reordered = scattered ? n * n : 0;  // H, and once more while it is made
    const Index tally = Tally::rows * static_cast<Index>(sizeof(double));
    return (reordered + std::max(reordered, n * width + slab * per_row)) * elements + slab * tally;
}

}  // namespace detail

/// Device memory that Solver<M, T, CudaBackend>::quantize takes at most, on top of moments and weights, for
/// `weights` (m, n) in device memory: factor and method's own n x n matrices, the columns of a slab,
/// cuSOLVER's workspace, and the result. Add 2 n^2 elements for H and D.
///
/// It follows the allocations one by one, in the order in which they are made and freed; with the objective
/// asked for, its stage as well. `reference`: whether the moments have D. G: the grid, for its group size.
template <Method M, Real T, Grid<T> G = IntegerGrid>
std::size_t workspace_bytes(CudaBackend& backend, Index m, Index n, SolverOptions options,
                            bool reference = M::residuals != Residuals::None) {
    options.group_size = resolve_group_size<G>(options.group_size);
    constexpr Index objective_columns = 512;
    constexpr bool forwards = M::residuals == Residuals::OfColumnsBefore;
    const bool refines = options.refinement.rounds > 0;
    const bool shifts = M::residuals == Residuals::OfAllColumns || (forwards && refines);
    const detail::GroupLayout groups = detail::group_layout(detail::natural_order(n), options);
    const Index slab = std::min(m, backend.slab_rows(n, m));
    const Index elements = static_cast<Index>(sizeof(T));

    const Index square = n * n * elements;
    const auto potrf = backend.cholesky_workspace_bytes(MatrixView<T>(nullptr, n, n));
    const Index factoring = square + static_cast<Index>(potrf.first);
    const bool shift_first = shifts && m >= n;
    const Index factor = square * (1 + forwards + shifts);  // R; M' below the diagonal; all of M' or D'

    const Index panel = panel_width(options.block_size);
    Index reach = 0;
    for (const GroupRange& group : groups.ranges) {
        const Index begin = group.begin / panel * panel;
        reach = std::max({reach, group.end - begin, std::min(n, begin + panel) - begin});
    }
    if (groups.ranges.empty()) reach = std::min(panel, n);
    const bool target = M::residuals == Residuals::OfAllColumns && !refines && !groups.members.empty();
    const Index columns =
        n * slab * elements * (1 + forwards + (M::residuals == Residuals::OfAllColumns) + target);
    const Index panels = reach * slab * elements;
    const Index parameters = 2 * groups.count * elements;
    const Index result = m * (n + parameters);
    const Index sweeping = factor + result + columns + panels + slab * (n + parameters) + 2 +
                           detail::refinement_bytes(groups, n, slab, elements, options);

    Index most = std::max(factoring, sweeping);
    if (options.report_objective) {
        const Index rounded = m * (n + parameters);
        const Index rounding = slab * (n * elements + n + parameters);
        const Index comparing = slab * (n * elements * (2 + reference) +
                                        std::min(objective_columns, n) * elements + n + parameters);
        most = std::max(
            most, square * (1 + forwards + shift_first) + result + rounded + std::max(rounding, comparing));
    }
    return static_cast<std::size_t>(most);
}

}  // namespace residua
