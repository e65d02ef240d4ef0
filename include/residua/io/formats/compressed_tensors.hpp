#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/formats/quantization_config.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_shape.hpp"

namespace residua::io {

namespace detail {

/// f(std::type_identity<Type>, dtype, name) of the type that scales are stored in.
template <class F>
decltype(auto) with_scale_type(ScaleType type, F&& f) {
    switch (type) {
        case ScaleType::Float16:
            return f(std::type_identity<float16>(), DType::F16, "float16");
        case ScaleType::BFloat16:
            return f(std::type_identity<bfloat16>(), DType::BF16, "bfloat16");
        case ScaleType::Float32:
            break;
    }
    return f(std::type_identity<float>(), DType::F32, "float32");
}

}  // namespace detail

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
    std::vector<std::byte> weight_scale = {};  ///< little endian, of type scale_dtype()
    std::vector<std::int32_t> weight_zero_point = {};
    std::array<std::int64_t, 2> weight_shape = {};

    [[nodiscard]] bool is_symmetric() const { return grid.symmetry != Symmetry::None; }

    [[nodiscard]] DType scale_dtype() const {
        return detail::with_scale_type(grid.scale_type, [](auto, DType dtype, const char*) { return dtype; });
    }

    /// Named <prefix>.weight_packed and so on, valid as long as this object.
    [[nodiscard]] std::vector<TensorInfo> tensors(const std::string& prefix) const {
        std::vector<TensorInfo> all = {
            tensor_of(prefix + ".weight_packed", {rows, packed_words(cols, grid.bits)}, weight_packed),
            {prefix + ".weight_scale", scale_dtype(), {rows, groups}, weight_scale},
            tensor_of(prefix + ".weight_shape", {2}, weight_shape)};
        if (!is_symmetric())
            all.push_back(tensor_of(prefix + ".weight_zero_point", {packed_words(rows, grid.bits), groups},
                                    weight_zero_point));
        return all;
    }

    /// quantization_config of a checkpoint whose linear layers, but `ignore`, are all quantized like this
    /// one.
    [[nodiscard]] nlohmann::json config(const std::vector<std::string>& ignore = {"lm_head"}) const {
        const bool is_per_channel = groups == 1;
        return detail::compressed_tensors_config(
            "pack-quantized",
            {{"num_bits", grid.bits},
             {"type", "int"},
             {"symmetric", is_symmetric()},
             {"strategy", is_per_channel ? "channel" : "group"},
             {"group_size", is_per_channel ? nlohmann::json() : nlohmann::json(cols / groups)},
             {"dynamic", false}},
            ignore);
    }
};

/// Packs a layer of 2 to 8 bits. Throws std::invalid_argument for groups that are not neighbours or do not
/// divide a row, scales that the grid's ScaleType does not hold exactly, and zeros that are no codes.
[[nodiscard]] inline PackQuantizedLayer pack_quantized(const QuantizedLayer<IntegerGrid>& layer) {
    const std::string format = "pack-quantized";
    detail::require_sequential_groups(layer, format);
    const int bits = layer.grid.bits;
    const Index words = packed_words(layer.cols, bits);
    PackQuantizedLayer packed{.grid = layer.grid,
                              .rows = layer.rows,
                              .cols = layer.cols,
                              .groups = layer.groups,
                              .weight_shape = {layer.rows, layer.cols}};
    packed.weight_packed.resize(static_cast<std::size_t>(layer.rows * words));
    pack_rows(layer.code_view(), bits, detail::words_of(packed.weight_packed, layer.rows, words));

    detail::with_scale_type(
        layer.grid.scale_type, [&]<class T>(std::type_identity<T>, DType, const char* type) {
            for (const float scale : layer.scales) {
                const T stored = detail::exact_scale<T>(scale, format, type);
                const auto bytes = std::as_bytes(std::span(&stored, 1));
                packed.weight_scale.insert(packed.weight_scale.end(), bytes.begin(), bytes.end());
            }
        });

    const std::vector<Code> zeros = detail::zero_codes(layer, format);
    if (packed.is_symmetric()) {
        for (const Code zero : zeros)
            require(zero == 1 << (bits - 1), format + ": a zero of a symmetric grid is", int(zero),
                    std::to_string(1 << (bits - 1)));
    } else {
        const Index zero_words = packed_words(layer.rows, bits);
        packed.weight_zero_point.resize(static_cast<std::size_t>(zero_words * layer.groups));
        pack_rows_transposed({zeros.data(), layer.groups, layer.rows}, bits,
                             detail::words_of(packed.weight_zero_point, zero_words, layer.groups));
    }
    return packed;
}

/// The inverse of pack_quantized(). Throws std::invalid_argument where the members of `packed` do not fit
/// together.
[[nodiscard]] inline QuantizedLayer<IntegerGrid> unpack_quantized(const PackQuantizedLayer& packed) {
    packed.grid.validate();
    detail::require_extents("unpack_quantized", packed.rows, packed.cols);
    require(packed.groups >= 1 && packed.cols % packed.groups == 0, "unpack_quantized: groups is",
            packed.groups, "a divisor of the columns, " + std::to_string(packed.cols));
    const int bits = packed.grid.bits;
    const Index words = packed_words(packed.cols, bits);
    detail::require_elements("unpack_quantized: weight_packed", packed.weight_packed.size(),
                             packed.rows * words);
    auto layer = QuantizedLayer<IntegerGrid>::of_shape(packed.rows, packed.cols, packed.cols / packed.groups,
                                                       packed.grid);
    unpack_rows(detail::words_of(packed.weight_packed, layer.rows, words), bits, layer.code_view());

    detail::with_scale_type(packed.grid.scale_type, [&]<class T>(std::type_identity<T>, DType, const char*) {
        std::vector<T> stored(layer.scales.size());
        require(packed.weight_scale.size() == stored.size() * sizeof(T), "unpack_quantized: weight_scale has",
                std::to_string(packed.weight_scale.size()) + " bytes",
                std::to_string(stored.size() * sizeof(T)));
        std::memcpy(static_cast<void*>(stored.data()), packed.weight_scale.data(),
                    packed.weight_scale.size());
        layer.scales.assign(stored.begin(), stored.end());
    });

    if (packed.is_symmetric()) {
        layer.zeros.assign(layer.zeros.size(), static_cast<float>(1 << (bits - 1)));
    } else {
        const Index zero_words = packed_words(layer.rows, bits);
        detail::require_elements("unpack_quantized: weight_zero_point", packed.weight_zero_point.size(),
                                 zero_words * layer.groups);
        std::vector<Code> zeros(layer.zeros.size());
        unpack_rows_transposed(detail::words_of(packed.weight_zero_point, zero_words, layer.groups), bits,
                               {zeros.data(), layer.groups, layer.rows});
        detail::set_zeros(layer, zeros);
    }
    return layer;
}

/// Reads <prefix>.weight_packed and so on; `config` is the checkpoint's quantization_config, of which the
/// first group applies. Throws FormatError where a tensor or a setting is missing or does not fit the others,
/// std::invalid_argument for numbers of bits other than 2 to 8.
[[nodiscard]] inline PackQuantizedLayer read_pack_quantized(const TensorTable& file,
                                                            const std::string& prefix,
                                                            const nlohmann::json& config) {
    const std::string weights = "/config_groups/group_0/weights";
    const auto scale_shape = detail::matrix_shape(file, prefix + ".weight_scale");
    const auto shape = file.read<std::int64_t>(prefix + ".weight_shape");
    if (shape.size() != 2 || shape[0] != scale_shape[0] || shape[1] < 1 || shape[1] % scale_shape[1] != 0)
        detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".weight_shape"), " holds ",
                          detail::text_of(std::vector<Index>(shape.begin(), shape.end())),
                          ", expected rows and columns of a matrix whose scales are ",
                          detail::text_of(scale_shape));
    // Groups of columns that are no neighbours, which the codes alone do not tell.
    if (file.contains(prefix + ".weight_g_idx"))
        detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".weight_g_idx"),
                          " is there, expected a layer without activation order");
    const auto type = detail::setting<std::string>(config, weights + "/type", "int");
    if (type != "int")
        detail::malformed("quantization_config", weights.substr(1), "/type is ", detail::in_quotes(type),
                          ", expected 'int'");
    const bool is_symmetric = detail::setting<bool>(config, weights + "/symmetric");
    PackQuantizedLayer layer{.grid = {.bits = detail::setting<int>(config, weights + "/num_bits"),
                                      .symmetry = is_symmetric ? Symmetry::FullRange : Symmetry::None},
                             .rows = scale_shape[0],
                             .cols = shape[1],
                             .groups = scale_shape[1],
                             .weight_shape = {shape[0], shape[1]}};
    layer.grid.validate();
    const int bits = layer.grid.bits;
    const TensorInfo& scale = file.info(prefix + ".weight_scale");
    if (scale.dtype == DType::F16) layer.grid.scale_type = ScaleType::Float16;
    if (scale.dtype == DType::BF16) layer.grid.scale_type = ScaleType::BFloat16;
    if (scale.dtype != layer.scale_dtype())
        detail::malformed(file.source(), "tensor ", detail::in_quotes(scale.name), " has dtype ",
                          name_of(scale.dtype), ", expected F16, BF16 or F32");
    layer.weight_scale.assign(scale.bytes.begin(), scale.bytes.end());
    detail::expect_shape(file, prefix + ".weight_packed", {layer.rows, packed_words(layer.cols, bits)});
    layer.weight_packed = file.read<std::int32_t>(prefix + ".weight_packed");
    if (!layer.is_symmetric()) {
        detail::expect_shape(file, prefix + ".weight_zero_point",
                             {packed_words(layer.rows, bits), layer.groups});
        layer.weight_zero_point = file.read<std::int32_t>(prefix + ".weight_zero_point");
    }
    return layer;
}

}  // namespace residua::io
