#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "residua/core/view.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/// Transposing 32-bit words at the speed of memory.
///
/// A transposed matrix is written in short runs far apart from each other, for which a processor would fetch
/// every cache line just to overwrite it. Stores that bypass the cache are three times as fast, as long as
/// they fill whole lines.
namespace residua::io::detail {

inline constexpr Index line_words = 16;

/// Columns of `words` before the first that starts a cache line in every row; 0 where none does.
inline Index columns_before_line(MatrixView<const std::uint32_t> words) {
    const auto address = reinterpret_cast<std::uintptr_t>(words.data) / sizeof(std::uint32_t);
    if (words.stride % line_words != 0) return 0;
    return static_cast<Index>((line_words - address % line_words) % line_words);
}

/// Four by four words at `from`, whose rows are `from_stride` bytes apart, transposed to `to`.
inline void transpose_four(const std::byte* from, Index from_stride, std::byte* to, Index to_stride) {
#if defined(__SSE2__)
    const auto load = [&](Index row) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + row * from_stride));
    };
    const auto store = [&](Index row, __m128i words) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + row * to_stride), words);
    };
    const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
    const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
    const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
    store(0, _mm_unpacklo_epi64(ab_low, cd_low));
    store(1, _mm_unpackhi_epi64(ab_low, cd_low));
    store(2, _mm_unpacklo_epi64(ab_high, cd_high));
    store(3, _mm_unpackhi_epi64(ab_high, cd_high));
#else
    for (Index i = 0; i < 4; ++i) {
        for (Index j = 0; j < 4; ++j)
            std::memcpy(to + j * to_stride + 4 * i, from + i * from_stride + 4 * j, 4);
    }
#endif
}

/// Whole, aligned lines.
inline void store_lines(const std::uint32_t* from, Index words, std::uint32_t* to) {
#if defined(__SSE2__)
    for (Index i = 0; i < words; i += 4)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm_load_si128(reinterpret_cast<const __m128i*>(from + i)));
#else
    std::memcpy(to, from, static_cast<std::size_t>(4 * words));
#endif
}

/// Rows of a tile: two cache lines of transposed words.
inline constexpr Index tile_rows = 2 * line_words;

/// to(k, i) = tile(i, k), at most tile_rows columns; rows of `tile` are `stride` bytes apart.
/// finish_stores() follows the last one. Each row is stored at one go, for lines that fill up side by side
/// are slower.
inline void store_transposed(const std::byte* tile, Index stride, MatrixView<std::uint32_t> to) {
    const bool whole_lines = reinterpret_cast<std::uintptr_t>(to.data) % 64 == 0 &&
                             to.stride % line_words == 0 && to.cols % line_words == 0;
    const Index fours = whole_lines ? to.rows / 4 * 4 : 0;
    alignas(64) std::uint32_t rows[4][tile_rows];
    for (Index k = 0; k < fours; k += 4) {
        for (Index i = 0; i < to.cols; i += 4)
            transpose_four(tile + i * stride + 4 * k, stride, reinterpret_cast<std::byte*>(rows[0] + i),
                           sizeof rows[0]);
        for (Index i = 0; i < 4; ++i) store_lines(rows[i], to.cols, to.row(k + i));
    }
    for (Index k = fours; k < to.rows; ++k) {
        for (Index i = 0; i < to.cols; ++i) std::memcpy(to.row(k) + i, tile + i * stride + 4 * k, 4);
    }
}

/// tile(i, k) = from(k, i). Lines of `from` are used up one after the other: its rows may all fall into the
/// same few sets of a cache.
inline void load_transposed(MatrixView<const std::uint32_t> from, std::byte* tile, Index stride) {
    const Index rows = from.rows / 4 * 4;
    const Index cols = from.cols / 4 * 4;
    for (Index k = 0; k < rows; k += 4) {
        for (Index i = 0; i < cols; i += 4)
            transpose_four(reinterpret_cast<const std::byte*>(from.row(k) + i), 4 * from.stride,
                           tile + i * stride + 4 * k, stride);
    }
    for (Index k = 0; k < from.rows; ++k) {
        for (Index i = k < rows ? cols : 0; i < from.cols; ++i)
            std::memcpy(tile + i * stride + 4 * k, from.row(k) + i, 4);
    }
}

/// Makes stores that bypass the cache visible to other threads in order.
inline void finish_stores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace residua::io::detail
