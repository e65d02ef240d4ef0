#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/gguf/tensor.hpp"

/// ggml's blocks of 32 weights, byte for byte. Of four low bits, weight j is in the lower half of byte j,
/// weight j + 16 in the upper half; the fifth bit of weight j is bit j of qh.
namespace residua::io {

struct BlockQ4_0 {
    float16 d;
    std::uint8_t qs[16];
};
struct BlockQ4_1 {
    float16 d, m;
    std::uint8_t qs[16];
};
struct BlockQ5_0 {
    float16 d;
    std::uint8_t qh[4], qs[16];
};
struct BlockQ5_1 {
    float16 d, m;
    std::uint8_t qh[4], qs[16];
};
struct BlockQ8_0 {
    float16 d;
    std::int8_t qs[32];
};
struct BlockMXFP4 {
    std::uint8_t e;  ///< E8M0 scale
    std::uint8_t qs[16];
};

namespace detail {

/// How a block is called in messages. Block is the type of C++ that the table's size is checked against.
template <class Block>
consteval const char* block_name(GGMLType type) {
    if (facts_of(type)->bytes != sizeof(Block)) throw "the block and the table differ in size";
    return facts_of(type)->name;
}

template <class B>
void pack_block_codes(const Code* codes, B& block) {
    for (int j = 0; j < 16; ++j)
        block.qs[j] = static_cast<std::uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
    if constexpr (requires { block.qh; }) {
        std::uint32_t high = 0;
        for (int j = 0; j < 32; ++j) high |= static_cast<std::uint32_t>(codes[j] >> 4 & 1) << j;
        std::memcpy(block.qh, &high, sizeof high);
    }
}

template <class B>
void unpack_block_codes(const B& block, Code* codes) {
    for (int j = 0; j < 16; ++j) {
        codes[j] = block.qs[j] & 15;
        codes[j + 16] = block.qs[j] >> 4;
    }
    if constexpr (requires { block.qh; }) {
        std::uint32_t high;
        std::memcpy(&high, block.qh, sizeof high);
        for (int j = 0; j < 32; ++j) codes[j] = static_cast<Code>(codes[j] | (high >> j & 1) << 4);
    }
}

[[nodiscard]] inline float16 exact_minimum(float minimum, const std::string& format) {
    require(float(float16(minimum)) == minimum, format + ": a minimum is", minimum,
            "a number that float16 holds exactly");
    return float16(minimum);
}

}  // namespace detail

/// How the grid G is stored in blocks of GGUF files:
///
///     Block         the block's type
///     type, name    its number in files, and its name
///     pack, unpack  one block from and to codes and parameters
template <class G>
struct GGMLFormat;

template <int Bits>
struct GGMLFormat<GGMLSignedGrid<Bits>> {
    using Block = std::conditional_t<Bits == 4, BlockQ4_0, BlockQ5_0>;
    static constexpr GGMLType type = Bits == 4 ? GGMLType::Q4_0 : GGMLType::Q5_0;
    static constexpr const char* name = detail::block_name<Block>(type);

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        const float16 magnitude = detail::exact_scale<float16>(p.scale, name, "float16");
        require(p.zero == 1 || p.zero == -1, std::string(name) + ": the sign of a scale is", p.zero,
                "1 or -1");
        block.d = float16(float(magnitude) * p.zero);
        detail::pack_block_codes(codes, block);
    }
    [[nodiscard]] static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        return {std::abs(float(block.d)), block.d < 0.0f ? -1.0f : 1.0f};
    }
};

template <int Bits>
struct GGMLFormat<GGMLMinimumGrid<Bits>> {
    using Block = std::conditional_t<Bits == 4, BlockQ4_1, BlockQ5_1>;
    static constexpr GGMLType type = Bits == 4 ? GGMLType::Q4_1 : GGMLType::Q5_1;
    static constexpr const char* name = detail::block_name<Block>(type);

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        block.d = detail::exact_scale<float16>(p.scale, name, "float16");
        block.m = detail::exact_minimum(p.zero, name);
        detail::pack_block_codes(codes, block);
    }
    [[nodiscard]] static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        return {block.d, block.m};
    }
};

template <>
struct GGMLFormat<Q8_0Grid> {
    using Block = BlockQ8_0;
    static constexpr GGMLType type = GGMLType::Q8_0;
    static constexpr const char* name = detail::block_name<Block>(type);

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        block.d = detail::exact_scale<float16>(p.scale, name, "float16");
        for (int j = 0; j < 32; ++j) block.qs[j] = static_cast<std::int8_t>(codes[j] - 127);
    }
    [[nodiscard]] static GridParams<float> unpack(const Block& block, Code* codes) {
        for (int j = 0; j < 32; ++j) {
            require(block.qs[j] >= -127, "Q8_0: a stored value is", int(block.qs[j]), "-127 to 127");
            codes[j] = static_cast<Code>(block.qs[j] + 127);
        }
        return {block.d, 0.0f};
    }
};

template <>
struct GGMLFormat<MXFP4Grid> {
    using Block = BlockMXFP4;
    static constexpr GGMLType type = GGMLType::MXFP4;
    static constexpr const char* name = detail::block_name<Block>(type);

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        block.e = detail::exact_exponent(p.scale);
        detail::pack_block_codes(codes, block);
    }
    [[nodiscard]] static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        return {detail::scale_of_exponent(block.e), 0.0f};
    }
};

/// Blocks of a layer, row by row. Throws std::invalid_argument where groups are not neighbours of the grid's
/// own group size, columns are no multiple of it, or parameters are not exact in the block's types.
template <class G>
[[nodiscard]] std::vector<typename GGMLFormat<G>::Block> pack_ggml(const QuantizedLayer<G>& layer) {
    using Format = GGMLFormat<G>;
    detail::require_sequential_groups(layer, Format::name, G::group_size);
    std::vector<typename Format::Block> blocks(static_cast<std::size_t>(layer.rows * layer.groups));
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g)
            Format::pack(layer.code_view().row(r) + G::group_size * g, layer.params(r, g),
                         blocks[static_cast<std::size_t>(r * layer.groups + g)]);
    }
    return blocks;
}

/// The same as a GGMLMatrix.
template <class G>
[[nodiscard]] GGMLMatrix ggml_matrix(const QuantizedLayer<G>& layer) {
    const auto blocks = pack_ggml(layer);
    const auto bytes = std::as_bytes(std::span(blocks));
    return {GGMLFormat<G>::type, layer.rows, layer.cols, {bytes.begin(), bytes.end()}};
}

/// The inverse of pack_ggml(), for `rows` rows. Throws std::invalid_argument where they do not divide the
/// blocks, or where a block holds what no fit makes.
template <class G>
[[nodiscard]] QuantizedLayer<G> unpack_ggml(const std::vector<typename GGMLFormat<G>::Block>& blocks,
                                            Index rows) {
    require(rows >= 1 && !blocks.empty() && blocks.size() % static_cast<std::size_t>(rows) == 0,
            "unpack_ggml: rows is", rows,
            "a divisor of the number of blocks, " + std::to_string(blocks.size()));
    const Index cols = static_cast<Index>(blocks.size()) / rows * G::group_size;
    auto layer = QuantizedLayer<G>::of_shape(rows, cols, G::group_size);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        Code* codes = layer.codes.data() + G::group_size * static_cast<Index>(i);
        const GridParams<float> p = GGMLFormat<G>::unpack(blocks[i], codes);
        layer.scales[i] = p.scale;
        layer.zeros[i] = p.zero;
    }
    return layer;
}

}  // namespace residua::io
