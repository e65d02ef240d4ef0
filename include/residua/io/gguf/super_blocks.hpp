#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "residua/grids/k_quant_grid.hpp"
#include "residua/io/formats/layer_packing.hpp"
#include "residua/io/gguf/blocks.hpp"

/// ggml's blocks of two-level grids, byte for byte: super-blocks of 256 weights, and IQ4_NL's of 32.
namespace residua::io {

struct BlockQ2_K {
    std::uint8_t scales[16];  ///< scale | minimum << 4
    std::uint8_t qs[64];      ///< two bits a weight
    float16 d, dmin;
};
struct BlockQ3_K {
    std::uint8_t hmask[32];  ///< bit k of byte m: the high bit of weight 32 k + m
    std::uint8_t qs[64];     ///< two low bits a weight
    std::uint8_t scales[12];
    float16 d;
};
struct BlockQ4_K {
    float16 d, dmin;
    std::uint8_t scales[12];
    std::uint8_t qs[128];
};
struct BlockQ5_K {
    float16 d, dmin;
    std::uint8_t scales[12];
    std::uint8_t qh[32];  ///< bit k of byte m: the high bit of weight 32 k + m
    std::uint8_t qs[128];
};
struct BlockQ6_K {
    std::uint8_t ql[128];
    std::uint8_t qh[64];
    std::int8_t scales[16];
    float16 d;
};
struct BlockIQ4_NL {
    float16 d;
    std::uint8_t qs[16];
};
struct BlockIQ4_XS {
    float16 d;
    std::uint16_t scales_h;
    std::uint8_t scales_l[4];
    std::uint8_t qs[128];
};

namespace detail {

/// What a block says of its groups: scale = d scales[j], zero = -dmin minima[j].
struct BlockScales {
    float16 d = float16(0.0f);
    float16 dmin = float16(0.0f);
    std::array<int, 16> scales = {};
    std::array<int, 16> minima = {};
};

/// The low four bits of the codes of `half` weights and of the `half` that follow, as so many bytes.
inline void pack_nibbles(const Code* codes, std::uint8_t* bytes, Index half) {
    for (Index l = 0; l < half; ++l)
        bytes[l] = static_cast<std::uint8_t>((codes[l] & 15) | (codes[l + half] & 15) << 4);
}
inline void unpack_nibbles(const std::uint8_t* bytes, Code* codes, Index half) {
    for (Index l = 0; l < half; ++l) {
        codes[l] = bytes[l] & 15;
        codes[l + half] = bytes[l] >> 4;
    }
}

/// Two bits a weight of 128 weights, in 32 bytes: weight 32 k + l in bits 2 k and 2 k + 1 of byte l.
inline void pack_pairs(const Code* codes, int shift, std::uint8_t* bytes) {
    for (int l = 0; l < 32; ++l) {
        int byte = 0;
        for (int k = 0; k < 4; ++k) byte |= (codes[32 * k + l] >> shift & 3) << 2 * k;
        bytes[l] = static_cast<std::uint8_t>(byte);
    }
}
inline void unpack_pairs(const std::uint8_t* bytes, int shift, Code* codes) {
    for (int l = 0; l < 32; ++l) {
        for (int k = 0; k < 4; ++k)
            codes[32 * k + l] = static_cast<Code>(codes[32 * k + l] | (bytes[l] >> 2 * k & 3) << shift);
    }
}

/// One bit a weight of 256 weights, in 32 bytes: weight 32 k + l in bit k of byte l.
inline void pack_bits(const Code* codes, int shift, std::uint8_t* bytes) {
    for (int l = 0; l < 32; ++l) {
        int byte = 0;
        for (int k = 0; k < 8; ++k) byte |= (codes[32 * k + l] >> shift & 1) << k;
        bytes[l] = static_cast<std::uint8_t>(byte);
    }
}
inline void unpack_bits(const std::uint8_t* bytes, int shift, Code* codes) {
    for (int l = 0; l < 32; ++l) {
        for (int k = 0; k < 8; ++k)
            codes[32 * k + l] = static_cast<Code>(codes[32 * k + l] | (bytes[l] >> k & 1) << shift);
    }
}

/// Q4_K and Q5_K keep eight pairs of six bits in twelve bytes: four scales, four minima, and the low nibbles of four
/// more pairs, whose top bits are those of the first eight bytes.
template <class Block>
struct PairsOfSix {
    static void pack_scales(const BlockScales& from, Block& b) {
        b.d = from.d;
        b.dmin = from.dmin;
        for (std::size_t j = 0; j < 4; ++j) {
            b.scales[j] = static_cast<std::uint8_t>(from.scales[j] | (from.scales[j + 4] >> 4) << 6);
            b.scales[j + 4] = static_cast<std::uint8_t>(from.minima[j] | (from.minima[j + 4] >> 4) << 6);
            b.scales[j + 8] =
                static_cast<std::uint8_t>((from.scales[j + 4] & 15) | (from.minima[j + 4] & 15) << 4);
        }
    }
    static BlockScales scales(const Block& b) {
        BlockScales to{.d = b.d, .dmin = b.dmin};
        for (std::size_t j = 0; j < 4; ++j) {
            to.scales[j] = b.scales[j] & 63;
            to.minima[j] = b.scales[j + 4] & 63;
            to.scales[j + 4] = (b.scales[j + 8] & 15) | b.scales[j] >> 6 << 4;
            to.minima[j + 4] = b.scales[j + 8] >> 4 | b.scales[j + 4] >> 6 << 4;
        }
        return to;
    }
};

/// How the grid that a block is of is stored: its type, its grid, and what takes the place of codes and scales. Codes
/// are 0 before unpack_codes().
template <class Block>
struct SuperBlockFormat;

template <>
struct SuperBlockFormat<BlockQ2_K> {
    static constexpr GGMLType type = GGMLType::Q2_K;
    static constexpr KQuantGrid<16> grid{.bits = 2};

    static void pack_codes(const Code* codes, BlockQ2_K& b) {
        for (int h = 0; h < 2; ++h) pack_pairs(codes + 128 * h, 0, b.qs + 32 * h);
    }
    static void unpack_codes(const BlockQ2_K& b, Code* codes) {
        for (int h = 0; h < 2; ++h) unpack_pairs(b.qs + 32 * h, 0, codes + 128 * h);
    }
    static void pack_scales(const BlockScales& s, BlockQ2_K& b) {
        b.d = s.d;
        b.dmin = s.dmin;
        for (std::size_t j = 0; j < 16; ++j)
            b.scales[j] = static_cast<std::uint8_t>(s.scales[j] | s.minima[j] << 4);
    }
    static BlockScales scales(const BlockQ2_K& b) {
        BlockScales s{.d = b.d, .dmin = b.dmin};
        for (std::size_t j = 0; j < 16; ++j) {
            s.scales[j] = b.scales[j] & 15;
            s.minima[j] = b.scales[j] >> 4;
        }
        return s;
    }
};

template <>
struct SuperBlockFormat<BlockQ3_K> {
    static constexpr GGMLType type = GGMLType::Q3_K;
    static constexpr KQuantGrid<16> grid{.bits = 3};

    static void pack_codes(const Code* codes, BlockQ3_K& b) {
        for (int h = 0; h < 2; ++h) pack_pairs(codes + 128 * h, 0, b.qs + 32 * h);
        pack_bits(codes, 2, b.hmask);
    }
    static void unpack_codes(const BlockQ3_K& b, Code* codes) {
        for (int h = 0; h < 2; ++h) unpack_pairs(b.qs + 32 * h, 0, codes + 128 * h);
        unpack_bits(b.hmask, 2, codes);
    }
    /// Six bits, 32 more than the code: the low nibble of group j in byte j % 8, the top bits in byte 8 + j % 4.
    static void pack_scales(const BlockScales& s, BlockQ3_K& b) {
        b.d = s.d;
        std::memset(b.scales, 0, sizeof b.scales);
        for (std::size_t j = 0; j < 16; ++j) {
            const int code = s.scales[j] + 32;
            std::uint8_t& low = b.scales[j % 8];
            std::uint8_t& high = b.scales[8 + j % 4];
            low = static_cast<std::uint8_t>(low | (code & 15) << (j < 8 ? 0 : 4));
            high = static_cast<std::uint8_t>(high | code >> 4 << 2 * (j / 4));
        }
    }
    static BlockScales scales(const BlockQ3_K& b) {
        BlockScales s{.d = b.d};
        for (std::size_t j = 0; j < 16; ++j) {
            const int low = b.scales[j % 8] >> (j < 8 ? 0 : 4) & 15;
            s.scales[j] = (low | (b.scales[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
        }
        return s;
    }
};

template <>
struct SuperBlockFormat<BlockQ4_K> : PairsOfSix<BlockQ4_K> {
    static constexpr GGMLType type = GGMLType::Q4_K;
    static constexpr KQuantGrid<32> grid{.bits = 4};

    static void pack_codes(const Code* codes, BlockQ4_K& b) {
        for (int k = 0; k < 4; ++k) pack_nibbles(codes + 64 * k, b.qs + 32 * k, 32);
    }
    static void unpack_codes(const BlockQ4_K& b, Code* codes) {
        for (int k = 0; k < 4; ++k) unpack_nibbles(b.qs + 32 * k, codes + 64 * k, 32);
    }
};

template <>
struct SuperBlockFormat<BlockQ5_K> : PairsOfSix<BlockQ5_K> {
    static constexpr GGMLType type = GGMLType::Q5_K;
    static constexpr KQuantGrid<32> grid{.bits = 5};

    static void pack_codes(const Code* codes, BlockQ5_K& b) {
        for (int k = 0; k < 4; ++k) pack_nibbles(codes + 64 * k, b.qs + 32 * k, 32);
        pack_bits(codes, 4, b.qh);
    }
    static void unpack_codes(const BlockQ5_K& b, Code* codes) {
        for (int k = 0; k < 4; ++k) unpack_nibbles(b.qs + 32 * k, codes + 64 * k, 32);
        unpack_bits(b.qh, 4, codes);
    }
};

template <>
struct SuperBlockFormat<BlockQ6_K> {
    static constexpr GGMLType type = GGMLType::Q6_K;
    static constexpr KQuantGrid<16> grid{.bits = 6};

    static void pack_codes(const Code* codes, BlockQ6_K& b) {
        for (int h = 0; h < 2; ++h) {
            pack_nibbles(codes + 128 * h, b.ql + 64 * h, 64);
            pack_pairs(codes + 128 * h, 4, b.qh + 32 * h);
        }
    }
    static void unpack_codes(const BlockQ6_K& b, Code* codes) {
        for (int h = 0; h < 2; ++h) {
            unpack_nibbles(b.ql + 64 * h, codes + 128 * h, 64);
            unpack_pairs(b.qh + 32 * h, 4, codes + 128 * h);
        }
    }
    static void pack_scales(const BlockScales& s, BlockQ6_K& b) {
        b.d = s.d;
        for (std::size_t j = 0; j < 16; ++j) b.scales[j] = static_cast<std::int8_t>(s.scales[j]);
    }
    static BlockScales scales(const BlockQ6_K& b) {
        BlockScales s{.d = b.d};
        for (std::size_t j = 0; j < 16; ++j) s.scales[j] = b.scales[j];
        return s;
    }
};

template <>
struct SuperBlockFormat<BlockIQ4_NL> {
    static constexpr GGMLType type = GGMLType::IQ4_NL;
    static constexpr IQ4Grid grid{.nested = false};

    static void pack_codes(const Code* codes, BlockIQ4_NL& b) { pack_nibbles(codes, b.qs, 16); }
    static void unpack_codes(const BlockIQ4_NL& b, Code* codes) { unpack_nibbles(b.qs, codes, 16); }
    static void pack_scales(const BlockScales& s, BlockIQ4_NL& b) { b.d = s.d; }
    static BlockScales scales(const BlockIQ4_NL& b) {
        BlockScales s{.d = b.d};
        s.scales[0] = 1;
        return s;
    }
};

template <>
struct SuperBlockFormat<BlockIQ4_XS> {
    static constexpr GGMLType type = GGMLType::IQ4_XS;
    static constexpr IQ4Grid grid{.nested = true};

    static void pack_codes(const Code* codes, BlockIQ4_XS& b) {
        for (int g = 0; g < 8; ++g) pack_nibbles(codes + 32 * g, b.qs + 16 * g, 16);
    }
    static void unpack_codes(const BlockIQ4_XS& b, Code* codes) {
        for (int g = 0; g < 8; ++g) unpack_nibbles(b.qs + 16 * g, codes + 32 * g, 16);
    }
    /// Six bits, 32 more than the code.
    static void pack_scales(const BlockScales& s, BlockIQ4_XS& b) {
        b.d = s.d;
        int high = 0;
        std::memset(b.scales_l, 0, sizeof b.scales_l);
        for (std::size_t j = 0; j < 8; ++j) {
            const int code = s.scales[j] + 32;
            std::uint8_t& low = b.scales_l[j / 2];
            low = static_cast<std::uint8_t>(low | (code & 15) << 4 * (j % 2));
            high |= code >> 4 << 2 * j;
        }
        b.scales_h = static_cast<std::uint16_t>(high);
    }
    static BlockScales scales(const BlockIQ4_XS& b) {
        BlockScales s{.d = b.d};
        for (std::size_t j = 0; j < 8; ++j) {
            const int low = b.scales_l[j / 2] >> 4 * (j % 2) & 15;
            s.scales[j] = (low | (b.scales_h >> 2 * j & 3) << 4) - 32;
        }
        return s;
    }
};

/// f.template operator()<Block>() for the block that stores `grid`.
template <class F>
auto with_block_of(const KQuantGrid<16>& grid, F f) {
    if (grid.bits == 2) return f.template operator()<BlockQ2_K>();
    return grid.bits == 3 ? f.template operator()<BlockQ3_K>() : f.template operator()<BlockQ6_K>();
}
template <class F>
auto with_block_of(const KQuantGrid<32>& grid, F f) {
    return grid.bits == 4 ? f.template operator()<BlockQ4_K>() : f.template operator()<BlockQ5_K>();
}
template <class F>
auto with_block_of(const IQ4Grid& grid, F f) {
    return grid.nested ? f.template operator()<BlockIQ4_XS>() : f.template operator()<BlockIQ4_NL>();
}

/// Every grid of the type G.
template <class G>
constexpr auto grids_like(const G&) {
    if constexpr (std::is_same_v<G, IQ4Grid>) {
        return std::array{IQ4Grid{.nested = true}, IQ4Grid{.nested = false}};
    } else if constexpr (G::group_size == 16) {
        return std::array{G{.bits = 2}, G{.bits = 3}, G{.bits = 6}};
    } else {
        return std::array{G{.bits = 4}, G{.bits = 5}};
    }
}

/// d and the codes whose products `product(j)` are, j < count.
template <class Product>
float16 exact_factor(const std::string& format, Product product, int count, residua::detail::CodeRange range,
                     std::array<int, 16>& codes) {
    const float d = residua::detail::shared_factor<float>(product, count, range);
    for (int j = 0; j < count; ++j) {
        const float code = residua::detail::nearest_multiple(product(j), d, range);
        require(d * code == product(j), format + ": a scale or minimum is", product(j),
                "a multiple of one float16 number by the codes of a super-block, as fits make them");
        codes[static_cast<std::size_t>(j)] = static_cast<int>(code);
    }
    return float16(d);
}

template <class Block, class G>
void pack_super_block(const G& grid, const Code* codes, const GridParams<float>* params, Block& block) {
    using Format = SuperBlockFormat<Block>;
    const std::string name = block_name<Block>(Format::type);
    const auto range = grid.scale_codes();
    BlockScales scales;
    scales.d = exact_factor(
        name, [&](int j) { return params[j].scale; }, grid.family(), range, scales.scales);
    if (grid.has_minimum())
        scales.dmin = exact_factor(
            name, [&](int j) { return -params[j].zero; }, grid.family(), range, scales.minima);
    Format::pack_scales(scales, block);
    Format::pack_codes(codes, block);
}

template <class Block, class G>
void unpack_super_block(const G& grid, const Block& block, Code* codes, float* scales, float* zeros) {
    using Format = SuperBlockFormat<Block>;
    const BlockScales stored = Format::scales(block);
    for (std::size_t j = 0; j < static_cast<std::size_t>(grid.family()); ++j) {
        scales[j] = float(stored.d) * static_cast<float>(stored.scales[j]);
        if (grid.has_minimum()) zeros[j] = -float(stored.dmin) * static_cast<float>(stored.minima[j]);
    }
    Format::unpack_codes(block, codes);
}

}  // namespace detail

/// The type that stores a KQuantGrid or an IQ4Grid.
template <class G>
[[nodiscard]] GGMLType ggml_type_of(const G& grid) {
    return detail::with_block_of(grid, []<class Block>() { return detail::SuperBlockFormat<Block>::type; });
}

/// A layer of a KQuantGrid or an IQ4Grid in blocks. Throws std::invalid_argument where groups are not neighbours,
/// columns are no multiple of a block's, or parameters are not what a block holds.
template <TwoLevelGrid<float> G>
[[nodiscard]] GGMLMatrix pack_super_blocks(const QuantizedLayer<G>& layer) {
    const G& grid = layer.grid;
    return detail::with_block_of(grid, [&]<class Block>() {
        constexpr GGMLType type = detail::SuperBlockFormat<Block>::type;
        const std::string name = detail::block_name<Block>(type);
        detail::require_sequential_groups(layer, name, G::group_size);
        const Index width = G::group_size * grid.family();
        require(layer.cols % width == 0, name + ": the columns are", layer.cols,
                "a multiple of " + std::to_string(width) + ", a block");
        std::vector<Block> blocks(static_cast<std::size_t>(layer.rows * layer.cols / width));
        std::vector<GridParams<float>> params(static_cast<std::size_t>(grid.family()));
        for (std::size_t b = 0; b < blocks.size(); ++b) {
            for (std::size_t j = 0; j < params.size(); ++j)
                params[j] = {layer.scales[b * params.size() + j], layer.zeros[b * params.size() + j]};
            detail::pack_super_block(grid, layer.codes.data() + width * static_cast<Index>(b), params.data(),
                                     blocks[b]);
        }
        const auto bytes = std::as_bytes(std::span(blocks));
        return GGMLMatrix{type, layer.rows, layer.cols, {bytes.begin(), bytes.end()}};
    });
}

/// The inverse of pack_super_blocks(). Throws std::invalid_argument for a type that is none of G's, and for bytes that
/// do not fill the shape.
template <TwoLevelGrid<float> G>
[[nodiscard]] QuantizedLayer<G> unpack_super_blocks(GGMLType type, std::span<const std::byte> bytes,
                                                    Index rows) {
    for (const G& grid : detail::grids_like(G{})) {
        if (ggml_type_of(grid) != type) continue;
        return detail::with_block_of(grid, [&]<class Block>() {
            const std::string name = detail::block_name<Block>(detail::SuperBlockFormat<Block>::type);
            const std::size_t count = bytes.size() / sizeof(Block);
            require(rows >= 1 && count > 0 && count * sizeof(Block) == bytes.size() &&
                        count % static_cast<std::size_t>(rows) == 0,
                    name + ": the bytes are", std::to_string(bytes.size()),
                    "blocks of " + std::to_string(sizeof(Block)) + " bytes, as many for each of " +
                        std::to_string(rows) + " rows");
            const Index width = G::group_size * grid.family();
            auto layer = QuantizedLayer<G>::of_shape(rows, static_cast<Index>(count) / rows * width,
                                                     G::group_size, grid);
            const auto family = static_cast<std::size_t>(grid.family());
            for (std::size_t b = 0; b < count; ++b) {
                Block block;
                std::memcpy(static_cast<void*>(&block), bytes.data() + b * sizeof(Block), sizeof(Block));
                detail::unpack_super_block(grid, block, layer.codes.data() + width * static_cast<Index>(b),
                                           layer.scales.data() + b * family, layer.zeros.data() + b * family);
            }
            return layer;
        });
    }
    reject("unpack_super_blocks: the type is", name_of(type), "one that stores the grid");
}

}  // namespace residua::io
