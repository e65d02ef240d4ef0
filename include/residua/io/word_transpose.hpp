#pragma once

#include <cstdint>

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

/// Columns of `to` before the first that starts a cache line in every row; 0 where none does.
inline Index columns_before_line(MatrixView<std::uint32_t> to) {
    const auto address = reinterpret_cast<std::uintptr_t>(to.data) / sizeof(std::uint32_t);
    if (to.stride % line_words != 0) return 0;
    return static_cast<Index>((line_words - address % line_words) % line_words);
}

/// to(k, i) = tile[i][k] for i < to.cols, k < to.rows. Call finish_transposed_stores() after the last one.
template <Index Width>
void store_transposed(const std::uint32_t (*tile)[Width], MatrixView<std::uint32_t> to) {
    Index blocks_end = 0;  // words [0, blocks_end) of all rows are stored four by four
#if defined(__SSE2__)
    const bool whole_lines = reinterpret_cast<std::uintptr_t>(to.data) % 64 == 0 &&
                             to.stride % line_words == 0 && to.cols % line_words == 0;
    if (whole_lines) blocks_end = to.rows / 4 * 4;
    for (Index k = 0; k < blocks_end; k += 4) {
        for (Index i = 0; i < to.cols; i += 4) {
            const auto load = [&](Index row) {
                return _mm_loadu_si128(reinterpret_cast<const __m128i*>(&tile[i + row][k]));
            };
            const auto store = [&](Index row, __m128i words) {
                _mm_stream_si128(reinterpret_cast<__m128i*>(to.row(k + row) + i), words);
            };
            const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
            const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
            const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
            store(0, _mm_unpacklo_epi64(ab_low, cd_low));
            store(1, _mm_unpackhi_epi64(ab_low, cd_low));
            store(2, _mm_unpacklo_epi64(ab_high, cd_high));
            store(3, _mm_unpackhi_epi64(ab_high, cd_high));
        }
    }
#endif
    for (Index k = blocks_end; k < to.rows; ++k) {
        std::uint32_t* row = to.row(k);
        for (Index i = 0; i < to.cols; ++i) row[i] = tile[i][k];
    }
}

/// Makes the stores visible to other threads in order.
inline void finish_transposed_stores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace residua::io::detail
