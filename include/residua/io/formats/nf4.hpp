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
#include "residua/io/formats/quantization_config.hpp"
#include "residua/io/json_tree.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_shape.hpp"

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

    /// quantization_config of a checkpoint whose linear layers, but `ignore`, are all stored like this one.
    [[nodiscard]] static nlohmann::json config(const std::vector<std::string>& ignore = {"lm_head"}) {
        return {{"quant_method", "bitsandbytes"},
                {"load_in_4bit", true},
                {"load_in_8bit", false},
                {"bnb_4bit_quant_type", "nf4"},
                {"bnb_4bit_use_double_quant", false},
                {"bnb_4bit_quant_storage", "uint8"},
                {"bnb_4bit_compute_dtype", "bfloat16"},
                {"llm_int8_skip_modules", ignore}};
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

/// Reads <prefix>.weight and its companions. Throws FormatError where one is missing or does not fit the others, and
/// where the scales are quantized themselves.
[[nodiscard]] inline NF4Layer read_nf4(const TensorTable& file, const std::string& prefix) {
    const std::string weight = prefix + ".weight";
    const std::string state_name = weight + ".quant_state.bitsandbytes__nf4";
    if (file.contains(weight + ".nested_absmax"))
        detail::malformed(file.source(), "tensor ", detail::in_quotes(weight + ".nested_absmax"),
                          " is there, expected no double quantization");
    const auto bytes = file.info(state_name).bytes;
    NF4Layer layer;
    layer.quant_state.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const nlohmann::json state = detail::parse_json_object(layer.quant_state, file.source(), state_name);
    layer.rows = detail::setting<Index>(state, "/shape/0");
    layer.cols = detail::setting<Index>(state, "/shape/1");
    layer.group_size = detail::setting<Index>(state, "/blocksize");
    const bool is_layer = layer.rows >= 1 && layer.cols >= 1 && layer.group_size >= 2 &&
                          layer.group_size % 2 == 0 && layer.cols % layer.group_size == 0;
    if (!is_layer || !residua::detail::product_fits(layer.rows, layer.cols))
        detail::malformed(file.source(), "tensor ", detail::in_quotes(state_name), " holds ",
                          detail::shown(state), ", expected even blocks that divide the rows of a matrix");
    detail::expect_shape(file, weight, {layer.rows * layer.cols / 2, 1});
    detail::expect_shape(file, weight + ".absmax", {layer.rows * layer.cols / layer.group_size});
    detail::expect_shape(file, weight + ".quant_map", {16});
    layer.weight = file.read<std::uint8_t>(weight);
    layer.absmax = file.read<float>(weight + ".absmax");
    std::ranges::copy(file.read<float>(weight + ".quant_map"), layer.quant_map.begin());
    return layer;
}

}  // namespace residua::io
