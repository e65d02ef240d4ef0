#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "residua/grids/codebook_grid.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/safetensors/writer.hpp"

namespace residua::io {

/// One linear layer as bitsandbytes serializes NF4, without double quantization. For m output rows, n input
/// columns and blocks of s neighbours (64 by default):
///
///     weight                                uint8 (m n / 2, 1)   row-major, even weights in the upper four bits
///     weight.absmax                         float32 (m n / s)
///     weight.quant_map                      float32 (16)
///     weight.quant_state.bitsandbytes__nf4  uint8, the text of a JSON object
struct NF4Layer {
    Index rows = 0;
    Index cols = 0;
    Index group_size = 64;
    std::vector<std::uint8_t> weight = {};
    std::vector<float> absmax = {};
    std::array<float, 16> quant_map = {};
    std::string quant_state = {};

    /// Named <prefix>.weight and so on, valid as long as this object.
    [[nodiscard]] std::vector<TensorInfo> tensors(const std::string& prefix) const {
        const auto state = std::as_bytes(std::span(quant_state));
        return {tensor_of(prefix + ".weight", {rows * cols / 2, 1}, weight),
                tensor_of(prefix + ".weight.absmax", {rows * cols / group_size}, absmax),
                tensor_of(prefix + ".weight.quant_map", {16}, quant_map),
                {prefix + ".weight.quant_state.bitsandbytes__nf4", DType::U8, {std::ssize(state)}, state}};
    }
};

/// Throws std::invalid_argument for groups that are not neighbours, do not divide a row, or are odd in
/// length.
[[nodiscard]] inline NF4Layer pack_nf4(const QuantizedLayer<NF4Grid>& layer) {
    const Index size = detail::require_sequential_groups(layer, "NF4");
    require(size % 2 == 0, "NF4: the group size is", size, "an even number");
    NF4Layer packed{.rows = layer.rows, .cols = layer.cols, .group_size = size, .absmax = layer.scales};
    packed.weight.resize(layer.codes.size() / 2);
    for (std::size_t i = 0; i < packed.weight.size(); ++i) {
        const int even = layer.codes[2 * i];
        const int odd = layer.codes[2 * i + 1];
        require(even < 16 && odd < 16, "NF4: a code is", std::max(even, odd), "0 to 15");
        packed.weight[i] = static_cast<std::uint8_t>(even << 4 | odd);
    }
    std::copy_n(layer.grid.values.begin(), 16, packed.quant_map.begin());
    packed.quant_state = nlohmann::json{{"quant_type", "nf4"},
                                        {"blocksize", size},
                                        {"dtype", "float32"},
                                        {"shape", {layer.rows, layer.cols}}}
                             .dump();
    return packed;
}

/// The inverse of pack_nf4(). Throws std::invalid_argument where the members of `packed` do not fit together.
[[nodiscard]] inline QuantizedLayer<NF4Grid> unpack_nf4(const NF4Layer& packed) {
    const Index size = packed.group_size;
    detail::require_extents("NF4", packed.rows, packed.cols);
    require(size >= 2 && size % 2 == 0 && packed.cols % size == 0, "NF4: the group size is", size,
            "an even divisor of the columns, " + std::to_string(packed.cols));
    detail::require_elements("NF4: weight", packed.weight.size(), packed.rows * packed.cols / 2);
    auto layer = QuantizedLayer<NF4Grid>::of_shape(packed.rows, packed.cols, size);
    for (std::size_t i = 0; i < packed.weight.size(); ++i) {
        layer.codes[2 * i] = packed.weight[i] >> 4;
        layer.codes[2 * i + 1] = packed.weight[i] & 15;
    }
    layer.scales = packed.absmax;
    std::ranges::copy(packed.quant_map, layer.grid.values.value);
    layer.validate();
    return layer;
}

}  // namespace residua::io
