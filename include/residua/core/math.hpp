#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "residua/core/types.hpp"

namespace residua::detail {

/// Nearest integer, ties to even.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T round_to_even(T x) {
#if defined(__CUDA_ARCH__)
    return rint(x);
#else
    return std::nearbyint(x);
#endif
}

/// The largest integer that is at most x.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T round_down(T x) {
#if defined(__CUDA_ARCH__)
    return floor(x);
#else
    return std::floor(x);
#endif
}

/// x / y, correctly rounded but for quotients below 2^-100 or above 2^100. On the device free of branches;
/// what depends on y alone can leave a loop.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T divide(T x, T y) {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, float>) {
        float inverse;
        asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(y));
        inverse = fmaf(fmaf(-y, inverse, 1.0f), inverse, inverse);
        const float quotient = x * inverse;
        const float corrected = fmaf(fmaf(-y, quotient, x), inverse, quotient);
        return fabsf(quotient) < 0x1.0p100f ? corrected : quotient;
    }
#endif
    return x / y;
}

/// round_to_even(x) for |x| < 2^22; farther away, an integer that is about as far.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T round_small(T x) {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, float>) return __fadd_rn(__fadd_rn(x, 0x1.8p23f), -0x1.8p23f);
#endif
    return round_to_even(x);
}

/// The integer x, 0 <= x < 2^23, as an int and back: on the device by its bits, conversions are slow there.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline int to_code(T x) {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, float>) return __float_as_int(__fadd_rn(x, 0x1.0p23f)) & 0x7fffff;
#endif
    return static_cast<int>(x);
}
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T from_code(int code) {
#if defined(__CUDA_ARCH__)
    if constexpr (std::is_same_v<T, float>) return __fadd_rn(__int_as_float(code | 0x4b000000), -0x1.0p23f);
#endif
    return static_cast<T>(code);
}

/// x limited to [low, high]; NaN becomes `low`, so that the result always converts to an integer.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T clamp(T x, T low, T high) {
    const T limited = x < high ? x : high;
    return x > low ? limited : low;
}

/// x limited to [0, high], high > 0; NaN becomes 0 or `high`.
///
/// Positive floating point numbers are ordered like their bits, and negative ones have negative bits.
/// Compilers see integer minima and maxima as single operations, but split loops at comparisons of floating
/// point numbers with constants, and then cannot make vector code of them.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T saturate(T x, T high) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    const Bits limit = std::bit_cast<Bits>(high);
    Bits bits = std::bit_cast<Bits>(x);
    bits = bits > 0 ? bits : 0;
    bits = bits < limit ? bits : limit;
    return std::bit_cast<T>(bits);
}

/// |x|, without a comparison for the same reason.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T magnitude_of(T x) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    return std::bit_cast<T>(std::bit_cast<Bits>(x) & (~Bits(0) >> 1));
}

/// x^p for x >= 0, p > 0.
[[nodiscard]] RESIDUA_HOST_DEVICE inline double power(double x, double p) { return std::pow(x, p); }

/// x^p for x >= 0, 0 < p <= 16, as 2^(p log2 x) by two polynomials; relative error below p 1e-5.
///
/// For loops over many errors, as vector code. Hence masks: a compiler would make branches of conditions.
[[nodiscard]] RESIDUA_HOST_DEVICE inline float power(float x, float p) {
    constexpr std::int32_t least_normal = 0x00800000;
    const std::int32_t given = std::bit_cast<std::int32_t>(x) & 0x7fffffff;  // -0 is 0
    const std::int32_t vanishes = (given - least_normal) >> 31;
    const std::int32_t bits = (given & ~vanishes) | (least_normal & vanishes);

    // x = 2^e (1 + t) with 1 + t in [sqrt(1/2), sqrt(2)); log2(1 + t) within 3e-7
    constexpr std::int32_t root_half = 0x3f3504f3;
    const std::int32_t shifted = bits - root_half;
    const float e = static_cast<float>(shifted >> 23);
    const float t = std::bit_cast<float>((shifted & 0x7fffff) + root_half) - 1.0f;
    const float log2x =
        e +
        t * (1.44269967f +
             t * (-0.721375823f +
                  t * (0.480466247f +
                       t * (-0.358963192f + t * (0.297250599f + t * (-0.272686660f + t * 0.170658022f))))));

    // 2^y = 2^i 2^f with f in [-1/2, 1/2]; 2^f within 1e-7
    const float y = p * log2x;
    const float i = round_to_even(y);
    const float f = y - i;
    std::int32_t exponent = static_cast<std::int32_t>(i);
    exponent = exponent > -126 ? exponent : -126;
    exponent = exponent < 127 ? exponent : 127;
    const float mantissa =
        1.0f + f * (0.693147242f +
                    f * (0.240221068f + f * (0.0555029735f + f * (0.00967603642f + f * 0.00134100043f))));
    const float result = std::bit_cast<float>((exponent + 127) << 23) * mantissa;
    return std::bit_cast<float>(std::bit_cast<std::int32_t>(result) & ~vanishes);
}

}  // namespace residua::detail
