#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/quantized_layer.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/tensor_shape.hpp"
#include "residua/io/safetensors/writer.hpp"

namespace residua::io {

/// One linear layer in the compressed-tensors format "pack-quantized", which llm-compressor writes and vLLM
/// and transformers read. For m output rows, n input columns, G groups of neighbours and b bits:
///
///     weight_packed      int32 (m, ceil(n b / 32))   codes, one stream for each row
///     weight_scale       float16, bfloat16 or float32 (m, G), by the grid's ScaleType
///     weight_zero_point  int32 (ceil(m b / 32), G)   zeros, one stream for each group; asymmetric grids only
///     weight_shape       int64 (2)                   m, n
///
/// A stored field is the signed value plus 2^(b-1), which is our unsigned code. Streams have their least
/// significant bits first and cross word boundaries; releases of compressed-tensors from before they did
/// disagree on 3, 5, 6 and 7 bits.
struct PackQuantizedLayer {
    IntegerGrid grid = {};
    Index rows = 0;
    Index cols = 0;
    Index groups = 0;
    std::vector<std::int32_t> weight_packed = {};
    std::vector<float> weight_scale = {};  ///< as values: tensors() converts
    std::vector<std::int32_t> weight_zero_point = {};
    std::array<std::int64_t, 2> weight_shape = {};
    std::vector<std::byte> stored_scale = {};  ///< weight_scale in the grid's ScaleType

    bool is_symmetric() const { return grid.symmetry != Symmetry::None; }

    DType scale_dtype() const {
        if (grid.scale_type == ScaleType::Float16) return DType::F16;
        return grid.scale_type == ScaleType::BFloat16 ? DType::BF16 : DType::F32;
    }

    /// Named <prefix>.weight_packed and so on, valid as long as this object.
    std::vector<TensorInfo> tensors(const std::string& prefix) const {
        std::vector<TensorInfo> all = {
            tensor_of(prefix + ".weight_packed", {rows, packed_words(cols, grid.bits)}, weight_packed),
            {prefix + ".weight_scale", scale_dtype(), {rows, groups}, stored_scale},
            tensor_of(prefix + ".weight_shape", {2}, weight_shape)};
        if (!is_symmetric())
            all.push_back(tensor_of(prefix + ".weight_zero_point", {packed_words(rows, grid.bits), groups},
                                    weight_zero_point));
        return all;
    }

    /// quantization_config of a checkpoint whose linear layers, but `ignore`, are all quantized like this
    /// one.
    nlohmann::json config(const std::vector<std::string>& ignore = {"lm_head"}) const {
        const Index size = cols / groups;
        const bool is_per_channel = groups == 1;
        return {{"quant_method", "compressed-tensors"},
                {"format", "pack-quantized"},
                {"quantization_status", "compressed"},
                {"ignore", ignore},
                {"config_groups",
                 {{"group_0",
                   {{"targets", {"Linear"}},
                    {"weights",
                     {{"num_bits", grid.bits},
                      {"type", "int"},
                      {"symmetric", is_symmetric()},
                      {"strategy", is_per_channel ? "channel" : "group"},
                      {"group_size", is_per_channel ? nlohmann::json() : nlohmann::json(size)},
                      {"dynamic", false}}}}}}}};
    }
};

namespace detail {

template <class Stored>
std::vector<std::byte> stored_scales(const std::vector<float>& scales, const char* type) {
    std::vector<Stored> stored;
    for (const float scale : scales) stored.push_back(exact_scale<Stored>(scale, "pack-quantized", type));
    const auto bytes = std::as_bytes(std::span(stored));
    return {bytes.begin(), bytes.end()};
}

inline std::vector<std::byte> stored_scales(const std::vector<float>& scales, ScaleType type) {
    if (type == ScaleType::Float16) return stored_scales<float16>(scales, "float16");
    if (type == ScaleType::BFloat16) return stored_scales<bfloat16>(scales, "bfloat16");
    return stored_scales<float>(scales, "float32");
}

}  // namespace detail

/// Packs a layer of 2 to 8 bits. Throws std::invalid_argument for groups that are not neighbours or do not
/// divide a row, scales that the grid's ScaleType does not hold exactly, and zeros that are no codes.
inline PackQuantizedLayer pack_quantized(const QuantizedLayer<IntegerGrid>& layer) {
    require_sequential_groups(layer, "pack-quantized");
    const int bits = layer.grid.bits;
    PackQuantizedLayer packed{.grid = layer.grid,
                              .rows = layer.rows,
                              .cols = layer.cols,
                              .groups = layer.groups,
                              .weight_scale = layer.scales,
                              .weight_shape = {layer.rows, layer.cols}};
    const std::vector<Code> zeros = zero_codes(layer);
    const auto words = [](std::vector<std::int32_t>& storage, Index rows, Index cols) {
        storage.resize(static_cast<std::size_t>(rows * cols));
        return MatrixView<std::uint32_t>(reinterpret_cast<std::uint32_t*>(storage.data()), rows, cols);
    };
    pack_rows(layer.code_view(), bits,
              words(packed.weight_packed, layer.rows, packed_words(layer.cols, bits)));
    packed.stored_scale = detail::stored_scales(layer.scales, layer.grid.scale_type);
    if (packed.is_symmetric()) {
        for (const Code zero : zeros)
            require(zero == 1 << (bits - 1), "pack-quantized: a zero of a symmetric grid is", int(zero),
                    std::to_string(1 << (bits - 1)));
    } else {
        pack_rows_transposed(MatrixView<const Code>(zeros.data(), layer.groups, layer.rows), bits,
                             words(packed.weight_zero_point, packed_words(layer.rows, bits), layer.groups));
    }
    return packed;
}

/// The inverse of pack_quantized().
inline QuantizedLayer<IntegerGrid> unpack_quantized(const PackQuantizedLayer& packed) {
    const int bits = packed.grid.bits;
    QuantizedLayer<IntegerGrid> layer{
        .rows = packed.rows,
        .cols = packed.cols,
        .groups = packed.groups,
        .scales = packed.weight_scale,
        .group_index = sequential_groups(packed.cols, packed.cols / packed.groups),
        .grid = packed.grid};
    const auto words = [](const std::vector<std::int32_t>& storage, Index rows, Index cols) {
        require(std::cmp_equal(storage.size(), rows * cols), "unpack_quantized: words:", storage.size(),
                std::to_string(rows * cols));
        return MatrixView<const std::uint32_t>(reinterpret_cast<const std::uint32_t*>(storage.data()), rows,
                                               cols);
    };
    layer.codes.resize(static_cast<std::size_t>(layer.rows * layer.cols));
    layer.zeros.assign(layer.scales.size(), static_cast<float>(1 << (bits - 1)));
    unpack_rows(words(packed.weight_packed, layer.rows, packed_words(layer.cols, bits)), bits,
                layer.code_view());
    if (!packed.is_symmetric()) {
        std::vector<Code> zeros(layer.zeros.size());
        unpack_rows_transposed(words(packed.weight_zero_point, packed_words(layer.rows, bits), layer.groups),
                               bits, MatrixView<Code>(zeros.data(), layer.groups, layer.rows));
        for (Index r = 0; r < layer.rows; ++r) {
            for (Index g = 0; g < layer.groups; ++g)
                layer.zeros[static_cast<std::size_t>(r * layer.groups + g)] =
                    zeros[static_cast<std::size_t>(g * layer.rows + r)];
        }
    }
    layer.validate();
    return layer;
}

/// Reads <prefix>.weight_packed and so on. Throws FormatError where a tensor is missing or does not fit the
/// others, nlohmann::json::exception where `config` (quantization_config) has no config group with bits and
/// symmetry.
inline PackQuantizedLayer read_pack_quantized(const TensorTable& file, const std::string& prefix,
                                              const nlohmann::json& config) {
    const nlohmann::json& weights = config.at("config_groups").at("group_0").at("weights");
    const auto& scale_shape = detail::matrix_shape(file, prefix + ".weight_scale");
    const auto shape = file.read<std::int64_t>(prefix + ".weight_shape");
    if (shape.size() != 2 || shape[0] != scale_shape[0] || shape[1] < 1 || shape[1] % scale_shape[1] != 0)
        detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".weight_shape"),
                          " does not fit weight_scale, ", detail::text_of(scale_shape));
    PackQuantizedLayer layer{
        .grid = {.bits = weights.at("num_bits").get<int>(),
                 .symmetry = weights.at("symmetric").get<bool>() ? Symmetry::FullRange : Symmetry::None},
        .rows = scale_shape[0],
        .cols = shape[1],
        .groups = scale_shape[1],
        .weight_shape = {shape[0], shape[1]}};
    layer.grid.validate();
    const int bits = layer.grid.bits;
    const DType type = file.info(prefix + ".weight_scale").dtype;
    if (type == DType::F16) layer.grid.scale_type = ScaleType::Float16;
    if (type == DType::BF16) layer.grid.scale_type = ScaleType::BFloat16;
    detail::expect_shape(file, prefix + ".weight_packed", {layer.rows, packed_words(layer.cols, bits)});
    layer.weight_packed = file.read<std::int32_t>(prefix + ".weight_packed");
    layer.weight_scale = file.read<float>(prefix + ".weight_scale");
    if (!layer.is_symmetric()) {
        detail::expect_shape(file, prefix + ".weight_zero_point",
                             {packed_words(layer.rows, bits), layer.groups});
        layer.weight_zero_point = file.read<std::int32_t>(prefix + ".weight_zero_point");
    }
    layer.stored_scale = detail::stored_scales(layer.weight_scale, layer.grid.scale_type);
    return layer;
}

}  // namespace residua::io
