#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "residua/io/formats/quantized_layer.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/tensor_shape.hpp"
#include "residua/io/safetensors/writer.hpp"

namespace residua::io {

/// One linear layer in the compressed-tensors formats "nvfp4-pack-quantized" and "mxfp4-pack-quantized". For
/// m output rows, n input columns and groups of s neighbours:
///
///     weight_packed        uint8 (m, n / 2)   E2M1, the even column in the lower four bits
///     weight_scale         (m, n / s)         NVFP4: float8 E4M3, s = 16; MXFP4: uint8, an E8M0 exponent, s
///     = 32 weight_global_scale  float32 (1)        NVFP4: 1 / tensor_scale, which divides
struct FP4Layer {
    bool is_nvfp4 = false;
    Index rows = 0;
    Index cols = 0;
    std::vector<std::uint8_t> weight_packed = {};
    std::vector<std::uint8_t> weight_scale = {};
    std::vector<float> weight_global_scale = {};

    Index group_size() const { return is_nvfp4 ? NVFP4Grid::group_size : MXFP4Grid::group_size; }

    /// Named <prefix>.weight_packed and so on, valid as long as this object.
    std::vector<TensorInfo> tensors(const std::string& prefix) const {
        std::vector<TensorInfo> all = {tensor_of(prefix + ".weight_packed", {rows, cols / 2}, weight_packed),
                                       {prefix + ".weight_scale",
                                        is_nvfp4 ? DType::F8E4M3 : DType::U8,
                                        {rows, cols / group_size()},
                                        std::as_bytes(std::span(weight_scale))}};
        if (is_nvfp4) all.push_back(tensor_of(prefix + ".weight_global_scale", {1}, weight_global_scale));
        return all;
    }

    /// quantization_config of a checkpoint whose linear layers, but `ignore`, are all quantized like this
    /// one.
    nlohmann::json config(const std::vector<std::string>& ignore = {"lm_head"}) const {
        return {{"quant_method", "compressed-tensors"},
                {"format", is_nvfp4 ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized"},
                {"quantization_status", "compressed"},
                {"ignore", ignore},
                {"config_groups",
                 {{"group_0",
                   {{"targets", {"Linear"}},
                    {"weights",
                     {{"num_bits", 4},
                      {"type", "float"},
                      {"symmetric", true},
                      {"strategy", is_nvfp4 ? "tensor_group" : "group"},
                      {"group_size", group_size()},
                      {"scale_dtype", is_nvfp4 ? "torch.float8_e4m3fn" : "torch.uint8"},
                      {"dynamic", false}}}}}}}};
    }
};

namespace detail {

template <class G>
FP4Layer pack_fp4_codes(const QuantizedLayer<G>& layer, const char* format, bool is_nvfp4) {
    require_sequential_groups(layer, format, G::group_size);
    FP4Layer packed{.is_nvfp4 = is_nvfp4, .rows = layer.rows, .cols = layer.cols};
    std::vector<std::uint32_t> words(static_cast<std::size_t>(layer.rows * packed_words(layer.cols, 4)));
    pack_rows(layer.code_view(), 4, {words.data(), layer.rows, packed_words(layer.cols, 4)});
    // groups of 16 or 32 columns fill their words: n / 2 bytes a row
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(words.data());
    packed.weight_packed.assign(bytes, bytes + words.size() * sizeof(std::uint32_t));
    return packed;
}

template <class G>
QuantizedLayer<G> unpack_fp4_codes(const FP4Layer& packed, const char* format) {
    const Index words = packed_words(packed.cols, 4);
    require(packed.cols > 0 && packed.cols % G::group_size == 0, std::string(format) + ": columns are",
            packed.cols, "a positive multiple of " + std::to_string(G::group_size));
    require(std::cmp_equal(packed.weight_packed.size(), packed.rows * packed.cols / 2),
            std::string(format) + ": weight_packed has bytes", packed.weight_packed.size(),
            std::to_string(packed.rows * packed.cols / 2));
    QuantizedLayer<G> layer{.rows = packed.rows,
                            .cols = packed.cols,
                            .groups = packed.cols / G::group_size,
                            .group_index = sequential_groups(packed.cols, G::group_size)};
    std::vector<std::uint32_t> aligned(static_cast<std::size_t>(packed.rows * words));
    std::memcpy(aligned.data(), packed.weight_packed.data(), packed.weight_packed.size());
    layer.codes.resize(static_cast<std::size_t>(layer.rows * layer.cols));
    unpack_rows({aligned.data(), packed.rows, words}, 4, layer.code_view());
    layer.zeros.assign(static_cast<std::size_t>(layer.rows * layer.groups), 0.0f);
    return layer;
}

}  // namespace detail

/// Throws std::invalid_argument where groups are not 16 neighbours, or a scale is none of E4M3.
inline FP4Layer pack_nvfp4(const QuantizedLayer<NVFP4Grid>& layer) {
    FP4Layer packed = detail::pack_fp4_codes(layer, "NVFP4", true);
    for (const float scale : layer.scales) {
        const int code = E4M3::encode(scale);
        require(scale > 0 && E4M3::decode<float>(code) == scale, "NVFP4: a scale is", scale,
                "positive and exact in E4M3");
        packed.weight_scale.push_back(static_cast<std::uint8_t>(code));
    }
    packed.weight_global_scale = {1.0f / layer.grid.tensor_scale};
    return packed;
}

/// Throws std::invalid_argument where groups are not 32 neighbours, or a scale is no power of two.
inline FP4Layer pack_mxfp4(const QuantizedLayer<MXFP4Grid>& layer) {
    FP4Layer packed = detail::pack_fp4_codes(layer, "MXFP4", false);
    for (const float scale : layer.scales) {
        const int code = E8M0::encode(scale);
        require(scale > 0 && code >= E8M0::min_code && code <= E8M0::max_code && E8M0::decode(code) == scale,
                "MXFP4: a scale is", scale, "a power of two, 2^-126 to 2^127");
        packed.weight_scale.push_back(static_cast<std::uint8_t>(code));
    }
    return packed;
}

/// The inverse of pack_nvfp4().
inline QuantizedLayer<NVFP4Grid> unpack_nvfp4(const FP4Layer& packed) {
    auto layer = detail::unpack_fp4_codes<NVFP4Grid>(packed, "NVFP4");
    for (const std::uint8_t code : packed.weight_scale) layer.scales.push_back(E4M3::decode<float>(code));
    require(packed.weight_global_scale.size() == 1,
            "NVFP4: weight_global_scale has elements:", packed.weight_global_scale.size(), "1");
    layer.grid.tensor_scale = 1.0f / packed.weight_global_scale[0];
    layer.validate();
    return layer;
}

/// The inverse of pack_mxfp4().
inline QuantizedLayer<MXFP4Grid> unpack_mxfp4(const FP4Layer& packed) {
    auto layer = detail::unpack_fp4_codes<MXFP4Grid>(packed, "MXFP4");
    for (const std::uint8_t code : packed.weight_scale) {
        require(code >= E8M0::min_code && code <= E8M0::max_code, "MXFP4: a scale's code is", int(code),
                "1 to 254");
        layer.scales.push_back(E8M0::decode(code));
    }
    layer.validate();
    return layer;
}

/// Reads <prefix>.weight_packed and so on; a layer is NVFP4 where it has a weight_global_scale. Throws
/// FormatError where a tensor is missing or does not fit the others.
inline FP4Layer read_fp4(const TensorTable& file, const std::string& prefix) {
    const auto& packed_shape = detail::matrix_shape(file, prefix + ".weight_packed");
    FP4Layer layer{.is_nvfp4 = file.contains(prefix + ".weight_global_scale"),
                   .rows = packed_shape[0],
                   .cols = 2 * packed_shape[1]};
    if (layer.cols % layer.group_size() != 0)
        detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".weight_packed"),
                          " has rows of ", layer.cols, " weights, expected a multiple of ",
                          layer.group_size());
    const TensorInfo& scale =
        detail::expect_shape(file, prefix + ".weight_scale", {layer.rows, layer.cols / layer.group_size()});
    if (scale.dtype != (layer.is_nvfp4 ? DType::F8E4M3 : DType::U8))
        detail::malformed(file.source(), "tensor ", detail::in_quotes(scale.name), " has dtype ",
                          name_of(scale.dtype), ", expected ", layer.is_nvfp4 ? "F8_E4M3" : "U8");
    layer.weight_packed = file.read<std::uint8_t>(prefix + ".weight_packed");
    layer.weight_scale.resize(scale.bytes.size());
    std::memcpy(layer.weight_scale.data(), scale.bytes.data(), scale.bytes.size());
    if (layer.is_nvfp4) layer.weight_global_scale = file.read<float>(prefix + ".weight_global_scale");
    return layer;
}

}  // namespace residua::io
