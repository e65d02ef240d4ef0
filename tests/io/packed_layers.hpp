#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "residua/solver/quantized_layer.hpp"
#include "support/random.hpp"

namespace residua::test {

/// Parameters of groups of random weights.
template <class G>
void set_random_params(QuantizedLayer<G>& layer, Random& random) {
    for (std::size_t i = 0; i < layer.scales.size(); ++i) {
        const auto p = layer.grid.params(static_cast<float>(-std::exp(random.normal())),
                                         static_cast<float>(std::exp(random.normal())));
        layer.scales[i] = p.scale;
        layer.zeros[i] = p.zero;
    }
}
template <TwoLevelGrid<float> G>
void set_random_params(QuantizedLayer<G>& layer, Random& random) {
    const std::size_t size = layer.scales.size();
    for (std::size_t first = 0; first < size; first += std::size_t(layer.grid.family())) {
        const int family = std::min(layer.grid.family(), static_cast<int>(size - first));
        GridParams<float> params[G::largest_family];
        float weights[G::largest_family];
        for (int j = 0; j < family; ++j) {
            params[j] = {static_cast<float>(random.normal()), static_cast<float>(-std::exp(random.normal()))};
            if (layer.grid.has_minimum()) params[j].scale = std::abs(params[j].scale);
            if (!layer.grid.has_minimum()) params[j].zero = 0;
            weights[j] = 1;
        }
        layer.grid.settle(params, weights, family);
        for (int j = 0; j < family; ++j) {
            layer.scales[first + std::size_t(j)] = params[j].scale;
            layer.zeros[first + std::size_t(j)] = params[j].zero;
        }
    }
}

/// Codes, and scales and zeros of groups of random weights, on any grid.
template <class G>
QuantizedLayer<G> random_quantized(const G& grid, Index rows, Index cols, Index group_size,
                                   std::uint64_t seed = 1) {
    Random random(seed);
    auto layer = QuantizedLayer<G>::of_shape(rows, cols, group_size, grid);
    set_random_params(layer, random);
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
