#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/core/matrix.hpp"
#include "residua/grids/grid.hpp"

namespace residua {

/// How the columns of a layer are spread over its groups.
struct Grouping {
    Index size = 0;             ///< columns of a group; the last one may have fewer
    bool is_sequential = true;  ///< group_index[j] = j / size: groups are runs of neighbours
};

/// A quantized layer in host memory, for engines and file formats:
///
///     w_rj ~ grid.decode(codes_rj, {scales_rg, zeros_rg}),  g = group_index[j]
///
/// for m output rows, n input columns in the original order and G groups; matrices are row-major, without
/// gaps. QuantizedMatrix::to_host() makes one of the result of a solve, the unpackers of residua/io.hpp one
/// of a file.
///
/// \tparam G  the grid, see Grid
/// \tparam T  type of scales, zeros and dequantized weights
template <class G, Real T = float>
requires Grid<G, T>
struct QuantizedLayer {
    Index rows = 0;                              ///< m
    Index cols = 0;                              ///< n
    Index groups = 0;                            ///< G
    std::vector<Code> codes = {};                ///< (m, n)
    std::vector<T> scales = {};                  ///< (m, G)
    std::vector<T> zeros = {};                   ///< (m, G)
    std::vector<std::int32_t> group_index = {};  ///< (n), each in [0, G)
    G grid = {};

    /// A layer to be filled in: groups of `group_size` neighbours, of which the last may be shorter; codes
    /// and zeros are 0, scales 1. Throws std::invalid_argument for sizes below 1.
    [[nodiscard]] static QuantizedLayer of_shape(Index rows, Index cols, Index group_size, G grid = {}) {
        require(rows >= 1, "QuantizedLayer::of_shape: rows is", rows, "at least 1");
        require(cols >= 1, "QuantizedLayer::of_shape: cols is", cols, "at least 1");
        require(group_size >= 1, "QuantizedLayer::of_shape: group_size is", group_size, "at least 1");
        require_size("QuantizedLayer::of_shape: rows times cols is", rows, cols);
        QuantizedLayer layer{.rows = rows, .cols = cols, .groups = (cols - 1) / group_size + 1, .grid = grid};
        layer.codes.assign(static_cast<std::size_t>(rows * cols), 0);
        layer.scales.assign(static_cast<std::size_t>(rows * layer.groups), T(1));
        layer.zeros.assign(layer.scales.size(), T(0));
        for (Index j = 0; j < cols; ++j)
            layer.group_index.push_back(static_cast<std::int32_t>(j / group_size));
        return layer;
    }

    [[nodiscard]] MatrixView<const Code> code_view() const { return {codes.data(), rows, cols}; }
    [[nodiscard]] MatrixView<Code> code_view() { return {codes.data(), rows, cols}; }

    [[nodiscard]] GridParams<T> params(Index row, Index group) const {
        const auto at = static_cast<std::size_t>(row * groups + group);
        return {scales[at], zeros[at]};
    }

    /// The weights that the codes stand for, (m, n). The layer must be valid.
    [[nodiscard]] Matrix<T> dequantize() const {
        Matrix<T> values(rows, cols);
        for (Index r = 0; r < rows; ++r) {
            for (Index j = 0; j < cols; ++j) {
                values(r, j) = grid.decode(codes[static_cast<std::size_t>(r * cols + j)],
                                           params(r, group_index[static_cast<std::size_t>(j)]));
            }
        }
        return values;
    }

    /// How the columns are grouped; the layer must be valid. Throws std::invalid_argument where groups other
    /// than the last differ in size.
    [[nodiscard]] Grouping grouping() const {
        std::vector<Index> members(static_cast<std::size_t>(groups), 0);
        for (const std::int32_t g : group_index) ++members[static_cast<std::size_t>(g)];
        Grouping grouping{.size = members.front()};
        for (std::size_t g = 0; g < members.size(); ++g) {
            const bool is_last = g + 1 == members.size();
            const bool fits =
                is_last ? members[g] >= 1 && members[g] <= grouping.size : members[g] == grouping.size;
            require(fits, "QuantizedLayer: group " + std::to_string(g) + " has",
                    std::to_string(members[g]) + " columns",
                    std::to_string(grouping.size) + ", as group 0 has");
        }
        for (std::size_t j = 0; j < group_index.size(); ++j) {
            if (group_index[j] != static_cast<Index>(j) / grouping.size) grouping.is_sequential = false;
        }
        return grouping;
    }

    /// Throws std::invalid_argument where sizes do not fit together.
    void validate() const {
        const auto holds = [](const char* what, std::size_t size, Index expected) {
            require(std::cmp_equal(size, expected), std::string("QuantizedLayer: ") + what + " has",
                    std::to_string(size) + " elements", std::to_string(expected));
        };
        require(rows >= 1, "QuantizedLayer: rows is", rows, "at least 1");
        require(cols >= 1, "QuantizedLayer: cols is", cols, "at least 1");
        require(groups >= 1, "QuantizedLayer: groups is", groups, "at least 1");
        require_size("QuantizedLayer: rows times cols is", rows, cols);
        require_size("QuantizedLayer: rows times groups is", rows, groups);
        holds("codes", codes.size(), rows * cols);
        holds("scales", scales.size(), rows * groups);
        holds("zeros", zeros.size(), rows * groups);
        holds("group_index", group_index.size(), cols);
        for (const std::int32_t g : group_index)
            require(g >= 0 && g < groups, "QuantizedLayer: group_index holds", g,
                    "0 to " + std::to_string(groups - 1));
        grid.validate();
    }

  private:
    static void require_size(const char* what, Index rows, Index cols) {
        require(detail::product_fits(rows, cols, sizeof(T)), what,
                std::to_string(rows) + " * " + std::to_string(cols), "fewer than 2^63 bytes");
    }
};

}  // namespace residua
