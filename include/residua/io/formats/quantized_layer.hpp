#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/core/matrix.hpp"
#include "residua/grids/grid.hpp"
#include "residua/solver/quantized_matrix.hpp"

namespace residua::io {

/// A quantized layer in host memory, what every format is packed from and unpacks to: m output rows, n input
/// columns, G groups, w_rj ~ grid.decode(codes_rj, {scales_rg, zeros_rg}) with g = group_index[j].
template <class G>
struct QuantizedLayer {
    Index rows = 0;
    Index cols = 0;
    Index groups = 0;
    std::vector<Code> codes = {};                ///< (m, n)
    std::vector<float> scales = {};              ///< (m, G)
    std::vector<float> zeros = {};               ///< (m, G)
    std::vector<std::int32_t> group_index = {};  ///< (n), each in [0, G)
    G grid = {};

    MatrixView<const Code> code_view() const { return {codes.data(), rows, cols}; }
    MatrixView<Code> code_view() { return {codes.data(), rows, cols}; }

    GridParams<float> params(Index row, Index group) const {
        const auto at = static_cast<std::size_t>(row * groups + group);
        return {scales[at], zeros[at]};
    }

    /// (m, n). Equal to QuantizedMatrix<float>::dequantize().
    Matrix<float> dequantize() const {
        Matrix<float> values(rows, cols);
        for (Index r = 0; r < rows; ++r) {
            for (Index j = 0; j < cols; ++j) {
                values(r, j) = grid.decode(codes[static_cast<std::size_t>(r * cols + j)],
                                           params(r, group_index[static_cast<std::size_t>(j)]));
            }
        }
        return values;
    }

    /// Throws std::invalid_argument where sizes do not fit together.
    void validate() const {
        const auto holds = [](const char* what, std::size_t size, Index expected) {
            require(std::cmp_equal(size, expected),
                    std::string("QuantizedLayer: ") + what + " has elements:", size,
                    std::to_string(expected));
        };
        require(rows >= 1, "QuantizedLayer: rows is", rows, "at least 1");
        require(cols >= 1, "QuantizedLayer: cols is", cols, "at least 1");
        require(groups >= 1, "QuantizedLayer: groups is", groups, "at least 1");
        holds("codes", codes.size(), rows * cols);
        holds("scales", scales.size(), rows * groups);
        holds("zeros", zeros.size(), rows * groups);
        holds("group_index", group_index.size(), cols);
        for (const std::int32_t g : group_index)
            require(g >= 0 && g < groups, "QuantizedLayer: group_index holds", g,
                    "0 to " + std::to_string(groups - 1));
        grid.validate();
    }
};

/// The result of a solve, copied to the host. Throws std::logic_error if it has no codes.
template <Real T, Backend<T> B, Grid<T> G>
QuantizedLayer<G> to_host(B& backend, const QuantizedMatrix<T, B, G>& quantized) {
    if (!quantized) {
        throw std::logic_error("residua: to_host: no codes, status is " +
                               std::string(to_string(quantized.report.status)));
    }
    const auto floats = [&](const auto& matrix) {
        const auto values = backend.read(matrix.view());
        return std::vector<float>(values.begin(), values.end());
    };
    return {.rows = quantized.codes.rows(),
            .cols = quantized.codes.cols(),
            .groups = quantized.scales.cols(),
            .codes = backend.read(quantized.codes.view()),
            .scales = floats(quantized.scales),
            .zeros = floats(quantized.zeros),
            .group_index = quantized.group_index,
            .grid = quantized.grid};
}

/// How columns are spread over groups.
struct Grouping {
    Index size = 0;             ///< columns of a group; the last one may have fewer
    bool is_sequential = true;  ///< group_index[j] = j / size

    bool is_per_channel(Index cols) const { return size == cols; }
};

/// Throws std::invalid_argument where groups other than the last differ in size.
template <class G>
Grouping grouping_of(const QuantizedLayer<G>& layer) {
    std::vector<Index> members(static_cast<std::size_t>(layer.groups), 0);
    for (const std::int32_t g : layer.group_index) ++members[static_cast<std::size_t>(g)];
    Grouping grouping{.size = members.front()};
    for (std::size_t g = 0; g < members.size(); ++g) {
        const bool fits = g + 1 < members.size() ? members[g] == grouping.size
                                                 : members[g] >= 1 && members[g] <= grouping.size;
        require(fits, "QuantizedLayer: columns of group " + std::to_string(g) + ":", members[g],
                std::to_string(grouping.size) + ", as of group 0");
    }
    for (std::size_t j = 0; j < layer.group_index.size(); ++j) {
        if (layer.group_index[j] != static_cast<Index>(j) / grouping.size) grouping.is_sequential = false;
    }
    return grouping;
}

/// j / size for j < cols.
inline std::vector<std::int32_t> sequential_groups(Index cols, Index size) {
    std::vector<std::int32_t> index(static_cast<std::size_t>(cols));
    for (Index j = 0; j < cols; ++j) index[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(j / size);
    return index;
}

/// Zeros of an integer grid, transposed: (G, m). Throws std::invalid_argument for zeros that are no codes.
template <class G>
std::vector<Code> zero_codes(const QuantizedLayer<G>& layer) {
    std::vector<Code> codes(layer.zeros.size());
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g) {
            const float zero = layer.params(r, g).zero;
            const bool is_code = zero >= 0 && zero < static_cast<float>(layer.grid.levels()) &&
                                 zero == static_cast<float>(static_cast<Code>(zero));
            require(is_code, "QuantizedLayer: a zero is", zero,
                    "an integer, 0 to " + std::to_string(layer.grid.levels() - 1));
            codes[static_cast<std::size_t>(g * layer.rows + r)] = static_cast<Code>(zero);
        }
    }
    return codes;
}

/// `scale` as it will be stored. Throws std::invalid_argument where that would change it.
template <class Stored>
Stored exact_scale(float scale, const char* format, const char* type) {
    const Stored stored(scale);
    require(
        scale > 0 && residua::detail::is_finite(scale) && static_cast<float>(stored) == scale,
        std::string(format) + ": a scale is", scale,
        std::string("positive and exact in ") + type + " (ScaleType: scales are to be rounded in the fit)");
    return stored;
}

/// For formats without a group index: groups of `size` neighbours (any size: 0), which divide a row.
template <class G>
Index require_sequential_groups(const QuantizedLayer<G>& layer, const char* format, Index size = 0) {
    layer.validate();
    const Grouping grouping = grouping_of(layer);
    const std::string name(format);
    require(grouping.is_sequential, name + ": groups are", "scattered over the columns",
            "neighbours, for the format has no group index (Ordering::Natural or ::GroupAware, or "
            "static_groups)");
    require(size == 0 || grouping.size == size, name + ": group size is", grouping.size,
            std::to_string(size) + " (SolverOptions::group_size)");
    require(layer.cols % grouping.size == 0, name + ": columns are", layer.cols,
            "a multiple of the group size, " + std::to_string(grouping.size));
    return grouping.size;
}

}  // namespace residua::io
