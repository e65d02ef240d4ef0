#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "residua/grids/codebook_grid.hpp"
#include "residua/io/formats/quantized_layer.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/writer.hpp"

namespace residua::io {

/// One linear layer as bitsandbytes serializes NF4, without double quantization. For m output rows, n input
/// columns and blocks of s neighbours (64 by default):
///
///     weight                                 uint8 (m n / 2, 1)  row-major, the even weight in the upper
///     four bits weight.absmax                          float32 (m n / s) weight.quant_map float32 (16)
///     weight.quant_state.bitsandbytes__nf4   uint8, the text of a JSON object
struct NF4Layer {
    Index rows = 0;
    Index cols = 0;
    Index group_size = 64;
    std::vector<std::uint8_t> weight = {};
    std::vector<float> absmax = {};
    std::array<float, 16> quant_map = {};
    std::string quant_state = {};

    /// Named <prefix>.weight and so on, valid as long as this object.
    std::vector<TensorInfo> tensors(const std::string& prefix) const {
        const auto state = std::as_bytes(std::span(quant_state));
        return {tensor_of(prefix + ".weight", {rows * cols / 2, 1}, weight),
                tensor_of(prefix + ".weight.absmax", {rows * cols / group_size}, absmax),
                tensor_of(prefix + ".weight.quant_map", {16}, quant_map),
                {prefix + ".weight.quant_state.bitsandbytes__nf4", DType::U8, {std::ssize(state)}, state}};
    }
};

/// Throws std::invalid_argument for groups that are not neighbours, do not divide a row, or are odd in
/// length.
inline NF4Layer pack_nf4(const QuantizedLayer<NF4Grid>& layer) {
    const Index size = require_sequential_groups(layer, "NF4");
    require(size % 2 == 0, "NF4: group size is", size, "even");
    NF4Layer packed{.rows = layer.rows, .cols = layer.cols, .group_size = size, .absmax = layer.scales};
    packed.weight.resize(layer.codes.size() / 2);
    for (std::size_t i = 0; i < packed.weight.size(); ++i) {
        const int pair = layer.codes[2 * i] << 4 | layer.codes[2 * i + 1];
        require(layer.codes[2 * i] < 16 && layer.codes[2 * i + 1] < 16, "NF4: a pair of codes is", pair,
                "two codes below 16");
        packed.weight[i] = static_cast<std::uint8_t>(pair);
    }
    std::copy_n(layer.grid.values.begin(), 16, packed.quant_map.begin());
    packed.quant_state = nlohmann::json{{"quant_type", "nf4"},
                                        {"blocksize", size},
                                        {"dtype", "float32"},
                                        {"shape", {layer.rows, layer.cols}}}
                             .dump();
    return packed;
}

/// The inverse of pack_nf4().
inline QuantizedLayer<NF4Grid> unpack_nf4(const NF4Layer& packed) {
    require(packed.group_size >= 1 && packed.cols % packed.group_size == 0, "NF4: group size is",
            packed.group_size, "a divisor of the columns, " + std::to_string(packed.cols));
    QuantizedLayer<NF4Grid> layer{.rows = packed.rows,
                                  .cols = packed.cols,
                                  .groups = packed.cols / packed.group_size,
                                  .scales = packed.absmax,
                                  .group_index = sequential_groups(packed.cols, packed.group_size)};
    for (const std::uint8_t pair : packed.weight) {
        layer.codes.push_back(pair >> 4);
        layer.codes.push_back(pair & 15);
    }
    layer.zeros.assign(layer.scales.size(), 0.0f);
    std::ranges::copy(packed.quant_map, layer.grid.values.value);
    layer.validate();
    return layer;
}

}  // namespace residua::io
