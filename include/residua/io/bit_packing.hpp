#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "residua/core/code_packing.hpp"
#include "residua/core/error.hpp"
#include "residua/core/view.hpp"
#include "residua/io/word_transpose.hpp"

/// Packing of whole matrices of codes, see core/code_packing.hpp for the layout.
namespace residua::io {

using residua::packed_words;

namespace detail {

static_assert(std::endian::native == std::endian::little, "streams are written byte by byte");

/// f(integral_constant<int, bits>)
template <class F>
void with_bits(int bits, F&& f) {
    switch (bits) {
        case 1:
            return f(std::integral_constant<int, 1>{});
        case 2:
            return f(std::integral_constant<int, 2>{});
        case 3:
            return f(std::integral_constant<int, 3>{});
        case 4:
            return f(std::integral_constant<int, 4>{});
        case 5:
            return f(std::integral_constant<int, 5>{});
        case 6:
            return f(std::integral_constant<int, 6>{});
        case 7:
            return f(std::integral_constant<int, 7>{});
        case 8:
            return f(std::integral_constant<int, 8>{});
        default:
            reject("packing: bits is", bits, "1 to 8");
    }
}

/// The unsigned integer of b bytes that eight packed codes are, where there is one; else std::uint64_t.
template <int Bits>
using Eight =
    std::conditional_t<Bits == 1, std::uint8_t,
                       std::conditional_t<Bits == 2, std::uint16_t,
                                          std::conditional_t<Bits == 4, std::uint32_t, std::uint64_t>>>;

/// Eight times `Count` codes to b bytes each. Returns the bitwise or of all codes, eight side by side.
///
/// Apart from the stores of odd widths, each loop is vector code.
template <int Bits, Index Count>
std::uint64_t pack_eights(const Code* codes, std::byte* bytes) {
    Eight<Bits> joined[Count];
    std::uint64_t seen = 0;
    for (Index i = 0; i < Count; ++i) {
        std::uint64_t x;
        std::memcpy(&x, codes + 8 * i, 8);
        seen |= x;
        joined[i] = static_cast<Eight<Bits>>(join_codes<Bits>(x));
    }
    if constexpr (sizeof(Eight<Bits>) == Bits) {
        std::memcpy(bytes, joined, sizeof joined);
    } else {
        for (Index i = 0; i < Count; ++i) std::memcpy(bytes + Bits * i, &joined[i], Bits);
    }
    return seen;
}

template <int Bits, Index Count>
void unpack_eights(const std::byte* bytes, Code* codes) {
    Eight<Bits> joined[Count] = {};
    std::uint64_t x[Count];
    if constexpr (sizeof(Eight<Bits>) == Bits) {
        std::memcpy(joined, bytes, sizeof joined);
    } else {
        for (Index i = 0; i < Count; ++i) std::memcpy(&joined[i], bytes + Bits * i, Bits);
    }
    for (Index i = 0; i < Count; ++i) x[i] = split_codes<Bits>(joined[i]);
    std::memcpy(codes, x, sizeof x);
}

/// One stream. Returns the bitwise or of all codes; `bytes` takes ceil(count b / 8).
template <int Bits>
unsigned pack_stream(const Code* codes, Index count, std::byte* bytes) {
    std::uint64_t seen = 0;
    Index i = 0;
    for (; i + 256 <= count; i += 256) seen |= pack_eights<Bits, 32>(codes + i, bytes + i / 8 * Bits);
    for (; i + 8 <= count; i += 8) seen |= pack_eights<Bits, 1>(codes + i, bytes + i / 8 * Bits);
    if (i < count) {
        Code last[8] = {};
        std::byte packed[Bits];
        std::memcpy(last, codes + i, static_cast<std::size_t>(count - i));
        seen |= pack_eights<Bits, 1>(last, packed);
        std::memcpy(bytes + i / 8 * Bits, packed, static_cast<std::size_t>(((count - i) * Bits + 7) / 8));
    }
    seen |= seen >> 32;
    seen |= seen >> 16;
    seen |= seen >> 8;
    return static_cast<unsigned>(seen & 0xff);
}

template <int Bits>
void unpack_stream(const std::byte* bytes, Index count, Code* codes) {
    Index i = 0;
    for (; i + 256 <= count; i += 256) unpack_eights<Bits, 32>(bytes + i / 8 * Bits, codes + i);
    for (; i + 8 <= count; i += 8) unpack_eights<Bits, 1>(bytes + i / 8 * Bits, codes + i);
    if (i < count) {
        Code last[8];
        std::byte packed[Bits] = {};
        std::memcpy(packed, bytes + i / 8 * Bits, static_cast<std::size_t>(((count - i) * Bits + 7) / 8));
        unpack_eights<Bits, 1>(packed, last);
        std::memcpy(codes + i, last, static_cast<std::size_t>(count - i));
    }
}

inline void expect_shape(const char* what, Index rows, Index cols, Index expected_rows, Index expected_cols) {
    require(rows == expected_rows && cols == expected_cols, std::string(what) + " has shape",
            std::to_string(rows) + " x " + std::to_string(cols),
            std::to_string(expected_rows) + " x " + std::to_string(expected_cols));
}

inline void expect_fitting_codes(unsigned seen, int bits) {
    require(seen >> bits == 0, "packing: the bitwise or of codes is", seen,
            "less than " + std::to_string(1 << bits));
}

/// Tiles of the transposing packers: rows and columns of codes, small enough to stay in cache packed.
inline constexpr Index tile_rows = 32;
inline constexpr Index tile_columns = 256;

/// Calls body(first row, rows, first column, columns) for each tile. The first tiles have `lead` rows, if not
/// 0.
template <class Body>
void for_each_tile(Index rows, Index columns, Index lead, Body body) {
    Index height = 0;
    for (Index r = 0; r < rows; r += height) {
        height = std::min(r == 0 && lead > 0 ? lead : tile_rows, rows - r);
        for (Index c = 0; c < columns; c += tile_columns)
            body(r, height, c, std::min(tile_columns, columns - c));
    }
}

}  // namespace detail

/// A stream for each row: `codes` (m, n) to `words` (m, packed_words(n)). Throws std::invalid_argument for
/// codes of more than `bits` bits.
inline void pack_rows(MatrixView<const Code> codes, int bits, MatrixView<std::uint32_t> words) {
    detail::expect_shape("pack_rows: words", words.rows, words.cols, codes.rows,
                         packed_words(codes.cols, bits));
    detail::with_bits(bits, [&](auto b) {
        unsigned seen = 0;
        for (Index i = 0; i < codes.rows; ++i) {
            if (words.cols > 0) words(i, words.cols - 1) = 0;
            seen |=
                detail::pack_stream<b>(codes.row(i), codes.cols, reinterpret_cast<std::byte*>(words.row(i)));
        }
        detail::expect_fitting_codes(seen, b);
    });
}

/// The inverse of pack_rows().
inline void unpack_rows(MatrixView<const std::uint32_t> words, int bits, MatrixView<Code> codes) {
    detail::expect_shape("unpack_rows: words", words.rows, words.cols, codes.rows,
                         packed_words(codes.cols, bits));
    detail::with_bits(bits, [&](auto b) {
        for (Index i = 0; i < codes.rows; ++i)
            detail::unpack_stream<b>(reinterpret_cast<const std::byte*>(words.row(i)), codes.cols,
                                     codes.row(i));
    });
}

/// The same streams, as columns: `codes` (m, n) to `words` (packed_words(n), m). Half as fast as a copy of
/// the codes, or faster.
inline void pack_rows_transposed(MatrixView<const Code> codes, int bits, MatrixView<std::uint32_t> words) {
    detail::expect_shape("pack_rows_transposed: words", words.rows, words.cols,
                         packed_words(codes.cols, bits), codes.rows);
    detail::with_bits(bits, [&](auto b) {
        alignas(64) std::uint32_t tile[detail::tile_rows][detail::tile_columns * b / 32];
        unsigned seen = 0;
        const Index lead = detail::columns_before_line(words);
        detail::for_each_tile(codes.rows, codes.cols, lead, [&](Index r, Index rows, Index c, Index columns) {
            const Index width = packed_words(columns, b);
            for (Index i = 0; i < rows; ++i) {
                tile[i][width - 1] = 0;
                seen |= detail::pack_stream<b>(codes.row(r + i) + c, columns,
                                               reinterpret_cast<std::byte*>(tile[i]));
            }
            detail::store_transposed(tile, words.block(c * b / 32, r, width, rows));
        });
        detail::finish_transposed_stores();
        detail::expect_fitting_codes(seen, b);
    });
}

/// The inverse of pack_rows_transposed().
inline void unpack_rows_transposed(MatrixView<const std::uint32_t> words, int bits, MatrixView<Code> codes) {
    detail::expect_shape("unpack_rows_transposed: words", words.rows, words.cols,
                         packed_words(codes.cols, bits), codes.rows);
    detail::with_bits(bits, [&](auto b) {
        alignas(64) std::uint32_t tile[detail::tile_rows][detail::tile_columns * b / 32];
        detail::for_each_tile(codes.rows, codes.cols, 0, [&](Index r, Index rows, Index c, Index columns) {
            for (Index k = 0; k < packed_words(columns, b); ++k) {
                const std::uint32_t* row = words.row(c * b / 32 + k) + r;
                for (Index i = 0; i < rows; ++i) tile[i][k] = row[i];
            }
            for (Index i = 0; i < rows; ++i)
                detail::unpack_stream<b>(reinterpret_cast<const std::byte*>(tile[i]), columns,
                                         codes.row(r + i) + c);
        });
    });
}

}  // namespace residua::io
