#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "residua/core/code_packing.hpp"
#include "residua/core/error.hpp"

/// One stream of codes, see core/code_packing.hpp for the layout, as bytes.
namespace residua::io::detail {

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

/// Eight numbers of 8 b bits, side by side in b words of 64.
template <int Bits>
void join_eights(const std::uint64_t* eights, std::byte* bytes) {
    constexpr int width = 8 * Bits;
    std::uint64_t word = 0;
    for (int i = 0; i < 8; ++i) {
        const int bit = i * width % 64;
        word |= eights[i] << bit;
        if (bit + width < 64) continue;
        std::memcpy(bytes + i * width / 64 * 8, &word, 8);
        word = bit + width > 64 ? eights[i] >> (64 - bit) : 0;
    }
}

/// The inverse of join_eights(), whatever the bits of a number above the lowest 8 b are.
template <int Bits>
void split_eights(const std::byte* bytes, std::uint64_t* eights) {
    constexpr int width = 8 * Bits;
    for (int i = 0; i < 8; ++i) {
        // the 64 bits that start with a number's first byte, or end with the last of all
        const int first = std::min(i * Bits, 8 * Bits - 8);
        std::memcpy(&eights[i], bytes + first, 8);
        eights[i] >>= i * width - 8 * first;
    }
}

/// Eight times `Count` codes to b bytes each. Returns the bitwise or of all codes, eight side by side.
///
/// Each loop over codes is vector code.
template <int Bits, Index Count>
std::uint64_t pack_eights(const Code* codes, std::byte* bytes) {
    Eight<Bits> joined[Count];
    std::uint64_t seen = 0;
    for (Index i = 0; i < Count; ++i) {
        std::uint64_t x;
        std::memcpy(&x, codes + 8 * i, 8);
        seen |= x;
        joined[i] = static_cast<Eight<Bits>>(residua::detail::join_codes<Bits>(x));
    }
    if constexpr (sizeof(Eight<Bits>) == Bits) {
        std::memcpy(bytes, joined, sizeof joined);
    } else if constexpr (Count % 8 == 0) {
        for (Index i = 0; i < Count; i += 8) join_eights<Bits>(joined + i, bytes + Bits * i);
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
    } else if constexpr (Count % 8 == 0) {
        for (Index i = 0; i < Count; i += 8) split_eights<Bits>(bytes + Bits * i, joined + i);
    } else {
        for (Index i = 0; i < Count; ++i) std::memcpy(&joined[i], bytes + Bits * i, Bits);
    }
    for (Index i = 0; i < Count; ++i) x[i] = residua::detail::split_codes<Bits>(joined[i]);
    std::memcpy(codes, x, sizeof x);
}

/// One stream. Returns the bitwise or of all codes, or 0 where any code fits; `bytes` takes ceil(count b /
/// 8).
template <int Bits>
unsigned pack_stream(const Code* codes, Index count, std::byte* bytes) {
    if constexpr (Bits == 8) {
        if (count > 0) std::memcpy(bytes, codes, static_cast<std::size_t>(count));
        return 0;
    }
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
    if constexpr (Bits == 8) {
        if (count > 0) std::memcpy(codes, bytes, static_cast<std::size_t>(count));
        return;
    }
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

}  // namespace residua::io::detail
