#pragma once

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "residua/core/minifloat.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/formats/quantization_config.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_shape.hpp"

namespace residua::io {

/// One linear layer in the compressed-tensors formats "nvfp4-pack-quantized" and "mxfp4-pack-quantized". For
/// m output rows, n input columns and groups of s neighbours, 16 in NVFP4 and 32 in MXFP4:
///
///     weight_packed        uint8 (m, n / 2)         E2M1, the even column in the lower four bits
///     weight_scale         NVFP4: E4M3 (m, n / s)   MXFP4: uint8 (m, n / s), E8M0 exponents
///     weight_global_scale  NVFP4: float32 (1)       1 / tensor_scale: readers divide by it
struct FP4Layer {
    bool is_nvfp4 = false;
    Index rows = 0;
    Index cols = 0;
    std::vector<std::uint8_t> weight_packed = {};
    std::vector<std::uint8_t> weight_scale = {};
    std::vector<float> weight_global_scale = {};

    [[nodiscard]] Index group_size() const {
        return is_nvfp4 ? NVFP4Grid::group_size : MXFP4Grid::group_size;
    }

    /// Named <prefix>.weight_packed and so on, valid as long as this object.
    [[nodiscard]] std::vector<TensorInfo> tensors(const std::string& prefix) const {
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
    [[nodiscard]] nlohmann::json config(const std::vector<std::string>& ignore = {"lm_head"}) const {
        return detail::compressed_tensors_config(
            is_nvfp4 ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized",
            {{"num_bits", 4},
             {"type", "float"},
             {"symmetric", true},
             {"strategy", is_nvfp4 ? "tensor_group" : "group"},
             {"group_size", group_size()},
             {"scale_dtype", is_nvfp4 ? "torch.float8_e4m3fn" : "torch.uint8"},
             {"dynamic", false}},
            ignore);
    }
};

namespace detail {

template <class G>
[[nodiscard]] FP4Layer pack_fp4_codes(const QuantizedLayer<G>& layer, const char* format, bool is_nvfp4) {
    require_sequential_groups(layer, format, G::group_size);
    FP4Layer packed{.is_nvfp4 = is_nvfp4, .rows = layer.rows, .cols = layer.cols};
    const Index width = packed_words(layer.cols, 4);
    std::vector<std::uint32_t> words(static_cast<std::size_t>(layer.rows * width));
    pack_rows(layer.code_view(), 4, {words.data(), layer.rows, width});
    // Groups of 16 or 32 columns fill their words, so that these are n / 2 bytes a row.
    packed.weight_packed.resize(words.size() * sizeof(std::uint32_t));
    std::memcpy(packed.weight_packed.data(), words.data(), packed.weight_packed.size());
    return packed;
}

/// Codes and groups; scales are left to the caller.
template <class G>
[[nodiscard]] QuantizedLayer<G> unpack_fp4_codes(const FP4Layer& packed, const std::string& format) {
    require_extents(format, packed.rows, packed.cols);
    const Index groups = packed.cols / G::group_size;
    require(groups >= 1 && packed.cols % G::group_size == 0, format + ": the columns are", packed.cols,
            "a positive multiple of " + std::to_string(G::group_size));
    require_elements(format + ": weight_packed", packed.weight_packed.size(), packed.rows * packed.cols / 2);
    require_elements(format + ": weight_scale", packed.weight_scale.size(), packed.rows * groups);
    auto layer = QuantizedLayer<G>::of_shape(packed.rows, packed.cols, G::group_size);
    const Index width = packed_words(packed.cols, 4);
    std::vector<std::uint32_t> words(static_cast<std::size_t>(packed.rows * width));
    std::memcpy(words.data(), packed.weight_packed.data(), packed.weight_packed.size());
    unpack_rows({words.data(), packed.rows, width}, 4, layer.code_view());
    return layer;
}

}  // namespace detail

/// Throws std::invalid_argument where groups are not 16 neighbours, or E4M3 does not hold a scale exactly.
[[nodiscard]] inline FP4Layer pack_nvfp4(const QuantizedLayer<NVFP4Grid>& layer) {
    FP4Layer packed = detail::pack_fp4_codes(layer, "NVFP4", true);
    for (const float scale : layer.scales) {
        const int code = E4M3::encode(scale);
        require(scale > 0 && E4M3::decode<float>(code) == scale, "NVFP4: a scale is", scale,
                "a positive number that E4M3 holds exactly");
        packed.weight_scale.push_back(static_cast<std::uint8_t>(code));
    }
    packed.weight_global_scale = {1.0f / layer.grid.tensor_scale};
    return packed;
}

/// Throws std::invalid_argument where groups are not 32 neighbours, or a scale is no power of two.
[[nodiscard]] inline FP4Layer pack_mxfp4(const QuantizedLayer<MXFP4Grid>& layer) {
    FP4Layer packed = detail::pack_fp4_codes(layer, "MXFP4", false);
    for (const float scale : layer.scales) packed.weight_scale.push_back(detail::exact_exponent(scale));
    return packed;
}

/// The inverse of pack_nvfp4(). Throws std::invalid_argument where the members of `packed` do not fit
/// together.
[[nodiscard]] inline QuantizedLayer<NVFP4Grid> unpack_nvfp4(const FP4Layer& packed) {
    auto layer = detail::unpack_fp4_codes<NVFP4Grid>(packed, "NVFP4");
    for (std::size_t i = 0; i < layer.scales.size(); ++i)
        layer.scales[i] = E4M3::decode<float>(packed.weight_scale[i]);
    detail::require_elements("NVFP4: weight_global_scale", packed.weight_global_scale.size(), 1);
    layer.grid.tensor_scale = 1.0f / packed.weight_global_scale[0];
    layer.validate();
    return layer;
}

/// The inverse of pack_mxfp4(). Throws std::invalid_argument where the members of `packed` do not fit
/// together.
[[nodiscard]] inline QuantizedLayer<MXFP4Grid> unpack_mxfp4(const FP4Layer& packed) {
    auto layer = detail::unpack_fp4_codes<MXFP4Grid>(packed, "MXFP4");
    for (std::size_t i = 0; i < layer.scales.size(); ++i)
        layer.scales[i] = detail::scale_of_exponent(packed.weight_scale[i]);
    return layer;
}

/// Reads <prefix>.weight_packed and so on; a layer is NVFP4 where it has a weight_global_scale. Throws
/// FormatError where a tensor is missing or does not fit the others.
[[nodiscard]] inline FP4Layer read_fp4(const TensorTable& file, const std::string& prefix) {
    const auto packed_shape = detail::matrix_shape(file, prefix + ".weight_packed");
    FP4Layer layer{.is_nvfp4 = file.contains(prefix + ".weight_global_scale"),
                   .rows = packed_shape[0],
                   .cols = 2 * packed_shape[1]};
    if (layer.cols % layer.group_size() != 0)
        detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".weight_packed"),
                          " has rows of ", layer.cols, " weights, expected a multiple of ",
                          layer.group_size());
    const TensorInfo scale =
        detail::expect_shape(file, prefix + ".weight_scale", {layer.rows, layer.cols / layer.group_size()});
    const DType scale_dtype = layer.is_nvfp4 ? DType::F8E4M3 : DType::U8;
    if (scale.dtype != scale_dtype)
        detail::malformed(file.source(), "tensor ", detail::in_quotes(scale.name), " has dtype ",
                          name_of(scale.dtype), ", expected ", name_of(scale_dtype));
    layer.weight_packed = file.read<std::uint8_t>(prefix + ".weight_packed");
    layer.weight_scale.resize(scale.bytes.size());
    std::memcpy(layer.weight_scale.data(), scale.bytes.data(), scale.bytes.size());
    if (layer.is_nvfp4) layer.weight_global_scale = file.read<float>(prefix + ".weight_global_scale");
    return layer;
}

}  // namespace residua::io
