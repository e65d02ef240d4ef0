#pragma once

#include "residua/core/ordering.hpp"
#include "residua/grids/group_size.hpp"
#include "residua/solver/quantized_matrix.hpp"

namespace residua {

/// Rounding of `weights` (out_features, in_features) to the nearest points of grids that are fitted to groups
/// of `group_size` columns of the weights themselves: the baseline of every method. Costs m n. Anything but
/// Status::Success, for weights that are not finite or too large for a scale, comes without codes.
template <Real T, Backend<T> B, Element In, Grid<T> G>
QuantizedMatrix<T, B, G> round_weights(B& backend, MatrixView<const In> weights, const G& grid,
                                       Index group_size = SolverOptions::grid_default) {
    detail::require_matrix("round_weights: weights", weights, weights.cols);
    require(weights.rows >= 1, "round_weights: weights has rows:", weights.rows, "at least 1");
    require(weights.cols >= 1, "round_weights: weights has columns:", weights.cols, "at least 1");
    SolverOptions options;
    options.group_size = resolve_group_size<G>(group_size);
    options.static_groups = true;
    options.validate();
    grid.validate();

    const Index m = weights.rows;
    const Index n = weights.cols;
    const std::vector<Index> order = detail::natural_order(n);
    const detail::GroupLayout groups = detail::group_layout(order, options);
    QuantizedMatrix<T, B, G> result{.grid = grid};
    result.group_index = groups.of_column;
    result.codes = backend.template allocate<Code>(m, n);
    result.scales = backend.template allocate<T>(m, groups.count);
    result.zeros = backend.template allocate<T>(m, groups.count);

    auto flag = backend.template allocate<Code>(1, 1);
    backend.set_zero(flag.view());
    const Index slab = std::min(m, backend.slab_rows(n, m));
    for (Index first = 0; first < m; first += slab) {
        const Index rows = std::min(slab, m - first);
        auto columns = backend.template workspace<T>(n, rows);
        auto codes = backend.template allocate<Code>(n, rows);
        auto scales = backend.template workspace<T>(groups.count, rows);
        auto zeros = backend.template workspace<T>(groups.count, rows);
        const MatrixView<const T> w = columns.view();
        const MatrixView<const T> scale = scales.view();
        const MatrixView<const T> zero = zeros.view();
        backend.load_columns(weights.row_range(first, rows), order, columns.view(), flag.view().data);
        backend.fit(grid, w, MatrixView<const T>(), groups.members, scales.view(), zeros.view());
        backend.round(grid, w, groups.of_position, scale, zero, codes.view());
        backend.transpose(MatrixView<const Code>(codes.view()), result.codes.view().row_range(first, rows));
        backend.transpose(scale, result.scales.view().row_range(first, rows));
        backend.transpose(zero, result.zeros.view().row_range(first, rows));
    }
    if (backend.read(flag.view())[0] != 0) {
        result = QuantizedMatrix<T, B, G>{.grid = grid};
        result.report.status = Status::NonFiniteWeights;
        return result;
    }
    for (const T scale : backend.read(result.scales.view())) {
        if (detail::is_finite(scale)) continue;
        result = QuantizedMatrix<T, B, G>{.grid = grid};
        result.report.status = Status::Overflow;
        break;
    }
    return result;
}

}  // namespace residua
