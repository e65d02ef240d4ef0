#pragma once

#include <cstdint>

#include "residua/core/types.hpp"

/// Codes as bit streams in 32-bit words, least significant bits first: code i of a stream is its bits
/// [i b, (i + 1) b), so that 32 codes are exactly b words; unused bits at the end are zero.
namespace residua {

/// Words that `count` codes of b bits take, b <= 32.
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr Index packed_words(Index count, int bits) {
    return count / 32 * bits + (count % 32 * bits + 31) / 32;  // count * bits may be beyond an Index
}

namespace detail {

/// Masks of `bits` bits, the first ones of every `period`.
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr std::uint64_t lowest(int bits, int period) {
    std::uint64_t mask = 0;
    for (int i = 0; i < 64; ++i) mask |= std::uint64_t(i % period < bits) << i;
    return mask;
}

/// Eight codes, one a byte, become the lowest 8 b bits: neighbours first, then pairs, then fours. Of each
/// code the lowest b bits are taken.
template <int Bits>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr std::uint64_t join_codes(std::uint64_t x) {
    constexpr std::uint64_t one = lowest(Bits, 16);
    constexpr std::uint64_t two = lowest(2 * Bits, 32);
    constexpr std::uint64_t four = lowest(4 * Bits, 64);
    x = (x & one) | (x >> (8 - Bits) & one << Bits);
    x = (x & two) | (x >> (16 - 2 * Bits) & two << (2 * Bits));
    return (x & four) | (x >> (32 - 4 * Bits) & four << (4 * Bits));
}

/// The inverse of join_codes(), whatever the bits above the lowest 8 b are.
template <int Bits>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr std::uint64_t split_codes(std::uint64_t x) {
    constexpr std::uint64_t one = lowest(Bits, 16);
    constexpr std::uint64_t two = lowest(2 * Bits, 32);
    constexpr std::uint64_t four = lowest(4 * Bits, 64);
    x = (x & four) | (x & four << (4 * Bits)) << (32 - 4 * Bits);
    x = (x & two) | (x & two << (2 * Bits)) << (16 - 2 * Bits);
    return (x & one) | (x & one << Bits) << (8 - Bits);
}

}  // namespace detail
}  // namespace residua
