#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/gptq_config.hpp"
#include "residua/io/formats/quantized_layer.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "residua/io/safetensors/tensor_shape.hpp"
#include "residua/io/safetensors/writer.hpp"

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

    MatrixView<std::uint32_t> qweight_words() {
        return {reinterpret_cast<std::uint32_t*>(qweight.data()), packed_words(in_features, bits),
                out_features};
    }
    MatrixView<const std::uint32_t> qweight_words() const {
        return const_cast<GPTQLayer*>(this)->qweight_words();
    }
    MatrixView<std::uint32_t> qzeros_words() {
        return {reinterpret_cast<std::uint32_t*>(qzeros.data()), groups, packed_words(out_features, bits)};
    }
    MatrixView<const std::uint32_t> qzeros_words() const {
        return const_cast<GPTQLayer*>(this)->qzeros_words();
    }

    /// Named <prefix>.qweight and so on, valid as long as this object.
    std::vector<TensorInfo> tensors(const std::string& prefix) const {
        const auto weight = qweight_words();
        const auto zero = qzeros_words();
        return {tensor_of(prefix + ".qweight", {weight.rows, weight.cols}, qweight),
                tensor_of(prefix + ".qzeros", {zero.rows, zero.cols}, qzeros),
                tensor_of(prefix + ".scales", {groups, out_features}, scales),
                tensor_of(prefix + ".g_idx", {in_features}, g_idx)};
    }
};

/// Packs a layer of any K and N; unpacking gives exactly the same codes, scales and zeros.
///
/// Throws std::invalid_argument for 5, 6 or 7 bits, scales that are not exact in float16
/// (ScaleType::Float16 makes them so), zeros that are no codes and, in version 1, zeros of 0, which it cannot
/// express. Runtimes want more than the format: K and N that are multiples of 32 and, most of them, K a
/// multiple of the group size.
inline GPTQLayer pack_gptq(const QuantizedLayer<IntegerGrid>& layer, GPTQVersion version = GPTQVersion::V2) {
    layer.validate();
    const int bits = layer.grid.bits;
    require_gptq_bits(bits);
    (void)grouping_of(layer);

    GPTQLayer packed{.bits = bits,
                     .version = version,
                     .in_features = layer.cols,
                     .out_features = layer.rows,
                     .groups = layer.groups,
                     .g_idx = layer.group_index};
    packed.qweight.resize(static_cast<std::size_t>(packed_words(layer.cols, bits) * layer.rows));
    packed.qzeros.resize(static_cast<std::size_t>(layer.groups * packed_words(layer.rows, bits)));
    packed.scales.resize(layer.scales.size());

    pack_rows_transposed(layer.code_view(), bits, packed.qweight_words());
    std::vector<Code> zeros = zero_codes(layer);
    if (version == GPTQVersion::V1) {
        for (Code& zero : zeros) {
            require(zero >= 1, "GPTQ format, version 1: a zero is", int(zero),
                    "at least 1, for zero - 1 is what is stored (version 2 stores any zero)");
            --zero;
        }
    }
    pack_rows(MatrixView<const Code>(zeros.data(), layer.groups, layer.rows), bits, packed.qzeros_words());
    for (Index g = 0; g < layer.groups; ++g) {
        for (Index r = 0; r < layer.rows; ++r)
            packed.scales[static_cast<std::size_t>(g * layer.rows + r)] =
                exact_scale<float16>(layer.params(r, g).scale, "GPTQ format", "float16");
    }
    return packed;
}

/// The inverse of pack_gptq(). The grid's symmetry is Symmetry::FullRange where all zeros are 2^(b-1), else
/// Symmetry::None; codes beyond N in the last word of qzeros are ignored.
inline QuantizedLayer<IntegerGrid> unpack_gptq(const GPTQLayer& packed) {
    require_gptq_bits(packed.bits);
    const Index m = packed.out_features;
    const Index n = packed.in_features;
    QuantizedLayer<IntegerGrid> layer{
        .rows = m, .cols = n, .groups = packed.groups, .group_index = packed.g_idx};
    layer.grid = {.bits = packed.bits, .scale_type = ScaleType::Float16};
    layer.codes.resize(static_cast<std::size_t>(m * n));
    layer.scales.resize(static_cast<std::size_t>(m * packed.groups));
    layer.zeros.resize(layer.scales.size());

    std::vector<Code> zeros(layer.zeros.size());
    unpack_rows_transposed(packed.qweight_words(), packed.bits, layer.code_view());
    unpack_rows(packed.qzeros_words(), packed.bits, MatrixView<Code>(zeros.data(), packed.groups, m));
    bool is_symmetric = true;
    for (Index g = 0; g < packed.groups; ++g) {
        for (Index r = 0; r < m; ++r) {
            const auto from = static_cast<std::size_t>(g * m + r);
            const auto to = static_cast<std::size_t>(r * packed.groups + g);
            const int zero = zeros[from] + (packed.version == GPTQVersion::V1 ? 1 : 0);
            is_symmetric = is_symmetric && zero == 1 << (packed.bits - 1);
            layer.zeros[to] = static_cast<float>(zero);
            layer.scales[to] = packed.scales[from];
        }
    }
    if (is_symmetric) layer.grid.symmetry = Symmetry::FullRange;
    layer.validate();
    return layer;
}

/// Reads <prefix>.qweight, .qzeros, .scales and .g_idx. Throws FormatError where one is missing or does not
/// fit the others.
inline GPTQLayer read_gptq(const TensorTable& file, const std::string& prefix, int bits,
                           GPTQVersion version) {
    require_gptq_bits(bits);
    const auto& scale_shape = detail::matrix_shape(file, prefix + ".scales");
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
