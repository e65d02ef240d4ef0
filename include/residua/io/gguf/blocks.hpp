#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/io/formats/quantized_layer.hpp"

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

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockMXFP4) == 17);

namespace detail {

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

inline float16 exact_minimum(float minimum) {
    require(float(float16(minimum)) == minimum, "ggml block: a minimum is", minimum, "exact in float16");
    return float16(minimum);
}

}  // namespace detail

/// How a grid is stored in blocks: the block's type, its number in GGUF files, and one block from and to
/// codes and parameters.
template <class G>
struct GGMLFormat;

template <int Bits>
struct GGMLFormat<GGMLSignedGrid<Bits>> {
    using Block = std::conditional_t<Bits == 4, BlockQ4_0, BlockQ5_0>;
    static constexpr std::uint32_t type = Bits == 4 ? 2 : 6;
    static constexpr const char* name = Bits == 4 ? "Q4_0" : "Q5_0";

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        const float16 magnitude = exact_scale<float16>(p.scale, name, "float16");
        require(p.zero == 1 || p.zero == -1, std::string(name) + ": the sign of a scale is", p.zero,
                "1 or -1");
        block.d = float16(float(magnitude) * p.zero);
        detail::pack_block_codes(codes, block);
    }
    static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        return {std::abs(float(block.d)), block.d < 0.0f ? -1.0f : 1.0f};
    }
};

template <int Bits>
struct GGMLFormat<GGMLMinimumGrid<Bits>> {
    using Block = std::conditional_t<Bits == 4, BlockQ4_1, BlockQ5_1>;
    static constexpr std::uint32_t type = Bits == 4 ? 3 : 7;
    static constexpr const char* name = Bits == 4 ? "Q4_1" : "Q5_1";

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        block.d = exact_scale<float16>(p.scale, name, "float16");
        block.m = detail::exact_minimum(p.zero);
        detail::pack_block_codes(codes, block);
    }
    static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        return {block.d, block.m};
    }
};

template <>
struct GGMLFormat<Q8_0Grid> {
    using Block = BlockQ8_0;
    static constexpr std::uint32_t type = 8;
    static constexpr const char* name = "Q8_0";

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        block.d = exact_scale<float16>(p.scale, name, "float16");
        for (int j = 0; j < 32; ++j) block.qs[j] = static_cast<std::int8_t>(codes[j] - 127);
    }
    static GridParams<float> unpack(const Block& block, Code* codes) {
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
    static constexpr std::uint32_t type = 39;
    static constexpr const char* name = "MXFP4";

    static void pack(const Code* codes, GridParams<float> p, Block& block) {
        const int code = E8M0::encode(p.scale);
        require(p.scale > 0 && E8M0::decode(code) == p.scale, "MXFP4: a scale is", p.scale, "a power of two");
        block.e = static_cast<std::uint8_t>(code);
        detail::pack_block_codes(codes, block);
    }
    static GridParams<float> unpack(const Block& block, Code* codes) {
        detail::unpack_block_codes(block, codes);
        require(block.e >= E8M0::min_code && block.e <= E8M0::max_code, "MXFP4: a scale's code is",
                int(block.e), "1 to 254");
        return {E8M0::decode(block.e), 0.0f};
    }
};

/// Blocks of a layer, row by row. Throws std::invalid_argument where groups are not 32 neighbours, columns no
/// multiple of 32, or parameters not exact in the block's types.
template <class G>
std::vector<typename GGMLFormat<G>::Block> pack_ggml(const QuantizedLayer<G>& layer) {
    using Format = GGMLFormat<G>;
    require_sequential_groups(layer, Format::name, G::group_size);
    std::vector<typename Format::Block> blocks(static_cast<std::size_t>(layer.rows * layer.groups));
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g)
            Format::pack(layer.code_view().row(r) + 32 * g, layer.params(r, g),
                         blocks[static_cast<std::size_t>(r * layer.groups + g)]);
    }
    return blocks;
}

/// The inverse of pack_ggml(), for `rows` rows.
template <class G>
QuantizedLayer<G> unpack_ggml(const std::vector<typename GGMLFormat<G>::Block>& blocks, Index rows) {
    require(rows >= 1 && !blocks.empty() && blocks.size() % static_cast<std::size_t>(rows) == 0,
            "unpack_ggml: rows is", rows,
            "a divisor of the number of blocks, " + std::to_string(blocks.size()));
    const Index groups = static_cast<Index>(blocks.size()) / rows;
    QuantizedLayer<G> layer{.rows = rows,
                            .cols = 32 * groups,
                            .groups = groups,
                            .group_index = sequential_groups(32 * groups, 32)};
    layer.codes.resize(blocks.size() * 32);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const GridParams<float> p = GGMLFormat<G>::unpack(blocks[i], layer.codes.data() + 32 * i);
        layer.scales.push_back(p.scale);
        layer.zeros.push_back(p.zero);
    }
    return layer;
}

}  // namespace residua::io
