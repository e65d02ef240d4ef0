#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "residua/core/sizes.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/io/atomic_file.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/onnx/message.hpp"

namespace residua::io {

/// One linear layer as ONNX Runtime's operator MatMulNBits (domain com.microsoft) reads it. For m output rows, n input
/// columns, G blocks of n / G neighbours and b bits:
///
///     B            uint8 (m, G, n / G * b / 8)   codes
///     scales       float (m, G)
///     zero_points  uint8 (m, ceil(G b / 8))      zeros; where there are none, all are 2^(b-1)
///
/// Fields of a byte have the least significant bits first.
struct MatMulNBitsLayer {
    IntegerGrid grid = {};
    Index rows = 0;
    Index cols = 0;
    Index groups = 0;
    std::vector<std::uint8_t> b = {};
    std::vector<float> scales = {};
    std::vector<std::uint8_t> zero_points = {};  ///< of asymmetric grids only

    [[nodiscard]] Index block_size() const { return cols / groups; }
    [[nodiscard]] Index zero_bytes() const { return (groups * grid.bits + 7) / 8; }  ///< of a row
};

namespace detail {

/// Codes of 2, 4 or 8 bits in the bytes of a row.
inline void pack_bytes(std::span<const Code> codes, int bits, std::span<std::uint8_t> bytes) {
    const std::size_t per_byte = static_cast<std::size_t>(8 / bits);
    for (std::size_t i = 0; i < codes.size(); ++i)
        bytes[i / per_byte] = static_cast<std::uint8_t>(bytes[i / per_byte] |
                                                        codes[i] << (static_cast<int>(i % per_byte) * bits));
}

/// The inverse of pack_bytes().
inline void unpack_bytes(std::span<const std::uint8_t> bytes, int bits, std::span<Code> codes) {
    const std::size_t per_byte = static_cast<std::size_t>(8 / bits);
    for (std::size_t i = 0; i < codes.size(); ++i)
        codes[i] = static_cast<Code>(bytes[i / per_byte] >> (static_cast<int>(i % per_byte) * bits) &
                                     ((1 << bits) - 1));
}

}  // namespace detail

/// Throws std::invalid_argument unless the operator has such codes and blocks.
inline void require_matmul_nbits(int bits, Index block_size) {
    require(bits == 2 || bits == 4 || bits == 8, "MatMulNBits: bits is", bits, "2, 4 or 8");
    require(block_size >= 16 && std::has_single_bit(static_cast<std::uint64_t>(block_size)),
            "MatMulNBits: the group size is", block_size, "a power of two, at least 16");
}

/// Packs a layer. Throws std::invalid_argument for other bits than 2, 4 and 8, groups that are not neighbours, do not divide
/// a row or are no power of two of at least 16, scales that are no positive numbers, and zeros that are no codes.
[[nodiscard]] inline MatMulNBitsLayer pack_matmul_nbits(const QuantizedLayer<IntegerGrid>& layer) {
    const std::string format = "MatMulNBits";
    const int bits = layer.grid.bits;
    require_matmul_nbits(bits, detail::require_sequential_groups(layer, format));
    MatMulNBitsLayer packed{
        .grid = layer.grid, .rows = layer.rows, .cols = layer.cols, .groups = layer.groups};
    packed.b.resize(layer.codes.size() * static_cast<std::size_t>(bits) / 8);
    detail::pack_bytes(layer.codes, bits, packed.b);  // blocks, and rows, fill their bytes
    for (const float scale : layer.scales)
        packed.scales.push_back(detail::exact_scale<float>(scale, format, "float"));
    if (layer.grid.symmetry != Symmetry::None) return packed;

    const std::vector<Code> transposed = detail::zero_codes(layer, format);
    const auto bytes = static_cast<std::size_t>(packed.zero_bytes());
    packed.zero_points.resize(static_cast<std::size_t>(layer.rows) * bytes);
    std::vector<Code> zeros(static_cast<std::size_t>(layer.groups));
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g)
            zeros[static_cast<std::size_t>(g)] = transposed[static_cast<std::size_t>(g * layer.rows + r)];
        detail::pack_bytes(zeros, bits,
                           std::span(packed.zero_points).subspan(static_cast<std::size_t>(r) * bytes, bytes));
    }
    return packed;
}

/// The inverse of pack_matmul_nbits(). Throws std::invalid_argument where the members of `packed` do not fit together.
[[nodiscard]] inline QuantizedLayer<IntegerGrid> unpack_matmul_nbits(const MatMulNBitsLayer& packed) {
    detail::require_extents("unpack_matmul_nbits", packed.rows, packed.cols);
    require(packed.groups >= 1 && packed.cols % packed.groups == 0, "unpack_matmul_nbits: groups is",
            packed.groups, "a divisor of the columns, " + std::to_string(packed.cols));
    const int bits = packed.grid.bits;
    require_matmul_nbits(bits, packed.block_size());
    detail::require_elements("unpack_matmul_nbits: b", packed.b.size(),
                             packed.rows * (packed.cols / 8 * bits));
    auto layer =
        QuantizedLayer<IntegerGrid>::of_shape(packed.rows, packed.cols, packed.block_size(), packed.grid);
    detail::require_elements("unpack_matmul_nbits: scales", packed.scales.size(),
                             packed.rows * packed.groups);
    detail::unpack_bytes(packed.b, bits, layer.codes);
    layer.scales = packed.scales;
    if (packed.grid.symmetry != Symmetry::None) {
        layer.zeros.assign(layer.zeros.size(), static_cast<float>(1 << (bits - 1)));
        return layer;
    }
    const auto bytes = static_cast<std::size_t>(packed.zero_bytes());
    detail::require_elements("unpack_matmul_nbits: zero_points", packed.zero_points.size(),
                             packed.rows * packed.zero_bytes());
    std::vector<Code> zeros(static_cast<std::size_t>(packed.groups));
    for (Index r = 0; r < packed.rows; ++r) {
        detail::unpack_bytes(
            std::span(packed.zero_points).subspan(static_cast<std::size_t>(r) * bytes, bytes), bits, zeros);
        for (Index g = 0; g < packed.groups; ++g)
            layer.zeros[static_cast<std::size_t>(r * packed.groups + g)] =
                static_cast<float>(zeros[static_cast<std::size_t>(g)]);
    }
    return layer;
}

/// Writes an ONNX file of one node, y = x W' for x float (tokens, n) and y float (tokens, m), whose initializers are named
/// <name>.B, <name>.scales and <name>.zero_points. Atomic and throwing like AtomicFile; throws std::invalid_argument for
/// layers of 2^31 bytes, which the format cannot hold.
inline void write_onnx(const std::filesystem::path& path, const MatMulNBitsLayer& layer,
                       const std::string& name) {
    using Message = detail::ProtobufMessage;
    constexpr int float_type = 1, uint8_type = 2, int_attribute = 2;                // of onnx.proto
    constexpr std::size_t limit = (std::size_t(1) << 31) - (std::size_t(1) << 20);  // the rest is smaller
    const std::size_t size = layer.b.size() + layer.scales.size() * 4 + layer.zero_points.size();
    require(size < limit, "write_onnx: the layer has", std::to_string(size) + " bytes", "fewer than 2^31");

    Message node, graph;
    const auto add_tensor = [&](const char* suffix, const std::vector<Index>& shape, int type,
                                std::span<const std::byte> bytes) {
        Message tensor;
        for (const Index extent : shape) tensor.number(1, static_cast<std::uint64_t>(extent));
        tensor.number(2, static_cast<std::uint64_t>(type));
        tensor.text(8, name + suffix);
        tensor.data(9, bytes);
        graph.message(5, tensor);
        node.text(1, name + suffix);
    };
    node.text(1, "x");
    add_tensor(".B", {layer.rows, layer.groups, layer.block_size() * layer.grid.bits / 8}, uint8_type,
               std::as_bytes(std::span(layer.b)));
    add_tensor(".scales", {layer.rows, layer.groups}, float_type, std::as_bytes(std::span(layer.scales)));
    if (!layer.zero_points.empty())
        add_tensor(".zero_points", {layer.rows, layer.zero_bytes()}, uint8_type,
                   std::as_bytes(std::span(layer.zero_points)));
    node.text(2, "y");
    node.text(3, name);
    node.text(4, "MatMulNBits");
    const auto add_attribute = [&](const char* attribute_name, Index value) {
        Message attribute;
        attribute.text(1, attribute_name);
        attribute.number(3, static_cast<std::uint64_t>(value));
        attribute.number(20, int_attribute);
        node.message(5, attribute);
    };
    add_attribute("K", layer.cols);
    add_attribute("N", layer.rows);
    add_attribute("bits", layer.grid.bits);
    add_attribute("block_size", layer.block_size());
    node.text(7, "com.microsoft");
    graph.message(1, node);
    graph.text(2, name);
    const auto add_value = [&](int field, const char* value_name, Index features) {
        Message tokens, width, shape, tensor, type, value;
        tokens.text(2, "tokens");
        width.number(1, static_cast<std::uint64_t>(features));
        shape.message(1, tokens);
        shape.message(1, width);
        tensor.number(1, float_type);
        tensor.message(2, shape);
        type.message(1, tensor);
        value.text(1, value_name);
        value.message(2, type);
        graph.message(field, value);
    };
    add_value(11, "x", layer.cols);
    add_value(12, "y", layer.rows);

    Message model;
    model.number(1, 10);  // the version of the format
    model.text(2, "residua");
    model.message(7, graph);
    const auto add_operators = [&](const char* domain, std::uint64_t version) {
        Message operators;
        operators.text(1, domain);
        operators.number(2, version);
        model.message(8, operators);
    };
    add_operators("", 21);
    add_operators("com.microsoft", 1);
    AtomicFile file(path);
    file.append(model.bytes());
    file.commit();
}

}  // namespace residua::io
