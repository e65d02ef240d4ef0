#pragma once

#include <string>
#include <utility>
#include <vector>

#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/gptq_config.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_shape.hpp"

namespace residua::io {

/// One linear layer in the GPTQ checkpoint format, as AutoGPTQ, GPTQModel, vLLM and transformers store it.
/// For K = in_features, N = out_features, G groups and b bits:
///
///     qweight  int32 (ceil(K b / 32), N)   codes of a column of W', one stream for each output
///     qzeros   int32 (G, ceil(N b / 32))   zeros (version 2) or zeros - 1 (version 1)
///     scales   float16 (G, N)
///     g_idx    int32 (K)                   group of each input
///
/// Streams have their least significant bits first; 3 bits make 32 values in 3 words, across their
/// boundaries.
struct GPTQLayer {
    int bits = 4;
    GPTQVersion version = GPTQVersion::V2;
    Index in_features = 0;
    Index out_features = 0;
    Index groups = 0;
    std::vector<std::int32_t> qweight = {};
    std::vector<std::int32_t> qzeros = {};
    std::vector<float16> scales = {};
    std::vector<std::int32_t> g_idx = {};

    /// Named <prefix>.qweight and so on, valid as long as this object.
    [[nodiscard]] std::vector<TensorInfo> tensors(const std::string& prefix) const {
        return {tensor_of(prefix + ".qweight", {packed_words(in_features, bits), out_features}, qweight),
                tensor_of(prefix + ".qzeros", {groups, packed_words(out_features, bits)}, qzeros),
                tensor_of(prefix + ".scales", {groups, out_features}, scales),
                tensor_of(prefix + ".g_idx", {in_features}, g_idx)};
    }
};

/// Packs a layer of any K and N; unpacking gives exactly the same codes, scales and zeros.
///
/// Runtimes want more than the format: K and N that are multiples of 32 and, most of them, K a multiple of
/// the group size.
///
/// Throws std::invalid_argument for 5, 6 or 7 bits, scales that are not exact in float16 (ScaleType::Float16
/// makes them so), zeros that are no codes and, in version 1, zeros of 0, which it cannot express.
[[nodiscard]] inline GPTQLayer pack_gptq(const QuantizedLayer<IntegerGrid>& layer,
                                         GPTQVersion version = GPTQVersion::V2) {
    const std::string format = "GPTQ format";
    layer.validate();
    const int bits = layer.grid.bits;
    require_gptq_bits(bits);
    (void)layer.grouping();  // it refuses groups that no group_size describes

    const Index words = packed_words(layer.cols, bits);
    const Index zero_words = packed_words(layer.rows, bits);
    GPTQLayer packed{.bits = bits,
                     .version = version,
                     .in_features = layer.cols,
                     .out_features = layer.rows,
                     .groups = layer.groups,
                     .g_idx = layer.group_index};
    packed.qweight.resize(static_cast<std::size_t>(words * layer.rows));
    packed.qzeros.resize(static_cast<std::size_t>(layer.groups * zero_words));
    packed.scales.resize(layer.scales.size());

    pack_rows_transposed(layer.code_view(), bits, detail::words_of(packed.qweight, words, layer.rows));
    std::vector<Code> zeros = detail::zero_codes(layer, format);
    if (version == GPTQVersion::V1) {
        for (Code& zero : zeros) {
            require(zero >= 1, format + ", version 1: a zero is", int(zero),
                    "at least 1, for zero - 1 is what is stored (version 2 stores any zero)");
            --zero;
        }
    }
    pack_rows(MatrixView<const Code>(zeros.data(), layer.groups, layer.rows), bits,
              detail::words_of(packed.qzeros, layer.groups, zero_words));
    for (Index g = 0; g < layer.groups; ++g) {
        for (Index r = 0; r < layer.rows; ++r)
            packed.scales[static_cast<std::size_t>(g * layer.rows + r)] =
                detail::exact_scale<float16>(layer.params(r, g).scale, format, "float16");
    }
    return packed;
}

/// The inverse of pack_gptq(). The grid's symmetry is Symmetry::FullRange where all zeros are 2^(b-1), else
/// Symmetry::None; codes beyond N in the last word of qzeros are ignored. Throws std::invalid_argument where
/// the members of `packed` do not fit together.
[[nodiscard]] inline QuantizedLayer<IntegerGrid> unpack_gptq(const GPTQLayer& packed) {
    const int bits = packed.bits;
    const Index m = packed.out_features;
    const Index n = packed.in_features;
    const Index groups = packed.groups;
    require_gptq_bits(bits);
    require(m >= 1 && n >= 1 && groups >= 1, "unpack_gptq: in_features, out_features and groups are",
            detail::text_of(std::vector{n, m, groups}), "at least 1 each");
    detail::require_extents("unpack_gptq", m, n);
    detail::require_extents("unpack_gptq: scales", m, groups);
    const Index words = packed_words(n, bits);
    const Index zero_words = packed_words(m, bits);
    detail::require_elements("unpack_gptq: qweight", packed.qweight.size(), words * m);
    detail::require_elements("unpack_gptq: qzeros", packed.qzeros.size(), groups * zero_words);
    detail::require_elements("unpack_gptq: scales", packed.scales.size(), groups * m);

    auto layer =
        QuantizedLayer<IntegerGrid>::of_shape(m, n, n, {.bits = bits, .scale_type = ScaleType::Float16});
    layer.groups = groups;
    layer.group_index = packed.g_idx;
    layer.scales.resize(packed.scales.size());
    layer.zeros.resize(packed.scales.size());
    unpack_rows_transposed(detail::words_of(packed.qweight, words, m), bits, layer.code_view());
    std::vector<Code> zeros(packed.scales.size());
    unpack_rows(detail::words_of(packed.qzeros, groups, zero_words), bits, {zeros.data(), groups, m});
    detail::set_zeros(layer, zeros, packed.version == GPTQVersion::V1 ? 1 : 0);
    for (Index g = 0; g < groups; ++g) {
        for (Index r = 0; r < m; ++r)
            layer.scales[static_cast<std::size_t>(r * groups + g)] =
                packed.scales[static_cast<std::size_t>(g * m + r)];
    }
    const bool is_symmetric = std::ranges::all_of(
        layer.zeros, [&](float zero) { return zero == static_cast<float>(1 << (bits - 1)); });
    if (is_symmetric) layer.grid.symmetry = Symmetry::FullRange;
    layer.validate();
    return layer;
}

/// Reads <prefix>.qweight, .qzeros, .scales and .g_idx; `bits` and `version` are those of the GPTQConfig.
/// Throws FormatError where a tensor is missing or does not fit the others.
[[nodiscard]] inline GPTQLayer read_gptq(const TensorTable& file, const std::string& prefix, int bits,
                                         GPTQVersion version) {
    require_gptq_bits(bits);
    const auto scale_shape = detail::matrix_shape(file, prefix + ".scales");
    const Index inputs = file.info(prefix + ".g_idx").elements();
    GPTQLayer layer{.bits = bits,
                    .version = version,
                    .in_features = inputs,
                    .out_features = scale_shape[1],
                    .groups = scale_shape[0]};
    detail::expect_shape(file, prefix + ".g_idx", {inputs});
    detail::expect_shape(file, prefix + ".qweight", {packed_words(inputs, bits), layer.out_features});
    detail::expect_shape(file, prefix + ".qzeros", {layer.groups, packed_words(layer.out_features, bits)});
    layer.qweight = file.read<std::int32_t>(prefix + ".qweight");
    layer.qzeros = file.read<std::int32_t>(prefix + ".qzeros");
    layer.scales = file.read<float16>(prefix + ".scales");
    layer.g_idx = file.read<std::int32_t>(prefix + ".g_idx");
    for (const std::int32_t g : layer.g_idx) {
        if (g < 0 || g >= layer.groups)
            detail::malformed(file.source(), "tensor ", detail::in_quotes(prefix + ".g_idx"), " holds ", g,
                              ", expected 0 to ", layer.groups - 1);
    }
    return layer;
}

}  // namespace residua::io
