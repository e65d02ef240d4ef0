#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "residua/solver/quantized_layer.hpp"
#include "support/random.hpp"

namespace residua::test {

/// Codes, and scales and zeros of groups of random weights, on any grid.
template <class G>
QuantizedLayer<G> random_quantized(const G& grid, Index rows, Index cols, Index group_size,
                                   std::uint64_t seed = 1) {
    Random random(seed);
    auto layer = QuantizedLayer<G>::of_shape(rows, cols, group_size, grid);
    for (std::size_t i = 0; i < layer.scales.size(); ++i) {
        const auto p = grid.params(static_cast<float>(-std::exp(random.normal())),
                                   static_cast<float>(std::exp(random.normal())));
        layer.scales[i] = p.scale;
        layer.zeros[i] = p.zero;
    }
    for (Index r = 0; r < rows; ++r) {
        for (Index j = 0; j < cols; ++j) {
            const auto p = layer.params(r, layer.group_index[static_cast<std::size_t>(j)]);
            layer.code_view()(r, j) =
                static_cast<Code>(grid.encode(static_cast<float>(2 * random.normal()), p));
        }
    }
    return layer;
}

/// Equal in all that decides the weights.
template <class G>
bool same_layer(const QuantizedLayer<G>& a, const QuantizedLayer<G>& b) {
    return a.rows == b.rows && a.cols == b.cols && a.groups == b.groups && a.codes == b.codes &&
           a.scales == b.scales && a.zeros == b.zeros && a.group_index == b.group_index;
}

/// what() of the std::invalid_argument, and no other error, that `call` ends in; "" where it ends well.
template <class Call>
std::string refusal_of(Call&& call) {
    try {
        std::forward<Call>(call)();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

}  // namespace residua::test
