#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "residua/core/types.hpp"

namespace residua {

/// x limited to [0, high], high > 0; NaN becomes 0 or `high`.
///
/// Positive floating point numbers are ordered like their bits, and negative ones have negative bits.
/// Compilers see integer minima and maxima as single operations, but split loops at comparisons of floating
/// point numbers with constants, and then cannot make vector code of them.
template <Real T>
RESIDUA_HOST_DEVICE constexpr T saturate(T x, T high) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    const Bits limit = std::bit_cast<Bits>(high);
    Bits bits = std::bit_cast<Bits>(x);
    bits = bits > 0 ? bits : 0;
    bits = bits < limit ? bits : limit;
    return std::bit_cast<T>(bits);
}

/// |x|, without a comparison for the same reason.
template <Real T>
RESIDUA_HOST_DEVICE constexpr T magnitude_of(T x) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    return std::bit_cast<T>(std::bit_cast<Bits>(x) & (~Bits(0) >> 1));
}

}  // namespace residua
