#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "residua/core/host_device.hpp"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "residua: -ffast-math and -ffinite-math-only assume away NaN and infinity, which residua finds and reports: compile without them"
#endif

namespace residua {

/// Signed type of every size, stride and subscript.
using Index = std::ptrdiff_t;

/// A quantized weight: the number of a grid point, 0 <= code < levels <= 256.
using Code = std::uint8_t;

/// IEEE 754 binary16 as stored in files and by engines. Storage only: arithmetic happens in float.
struct float16 {
    std::uint16_t bits = 0;

    float16() = default;
    /// Rounds to nearest, ties to even; overflows to infinity.
    RESIDUA_HOST_DEVICE explicit constexpr float16(float value) : bits(encode(value)) {}
    RESIDUA_HOST_DEVICE constexpr operator float() const { return decode(bits); }

    static constexpr float max = 65504.0f;             ///< largest finite value
    static constexpr float min_positive = 0x1.0p-24f;  ///< smallest subnormal value

  private:
    RESIDUA_HOST_DEVICE static constexpr std::uint16_t encode(float value) {
        const std::uint32_t f = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t sign = (f >> 16) & 0x8000u;
        const std::uint32_t magnitude = f & 0x7fffffffu;
        if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
        if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 2^16
        if (magnitude < 0x38800000u) {                             // below 2^-14: subnormal
            const std::uint32_t shift = 126u - (magnitude >> 23);  // weight of one unit: 2^-24
            if (shift > 24u) return static_cast<std::uint16_t>(sign);
            return static_cast<std::uint16_t>(sign | round_shift((magnitude & 0x7fffffu) | 0x800000u, shift));
        }
        return static_cast<std::uint16_t>(sign | round_shift(magnitude - 0x38000000u, 13u));
    }

    /// value / 2^shift, rounded to nearest, ties to even.
    RESIDUA_HOST_DEVICE static constexpr std::uint32_t round_shift(std::uint32_t value, std::uint32_t shift) {
        const std::uint32_t half = 1u << (shift - 1u);
        const std::uint32_t odd = (value >> shift) & 1u;
        return (value + half - 1u + odd) >> shift;
    }

    /// Free of branches: a loop over it becomes vector code.
    RESIDUA_HOST_DEVICE static constexpr float decode(std::uint16_t bits) {
        const std::uint32_t sign = (bits & 0x8000u) << 16;
        const std::uint32_t magnitude = bits & 0x7fffu;
        const std::uint32_t rebiased = (magnitude << 13) + 0x38000000u;
        const float subnormal = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1.0p-24f;
        const std::uint32_t special = rebiased + 0x38000000u;  // infinity and NaN
        const std::uint32_t finite = magnitude < 0x400u ? std::bit_cast<std::uint32_t>(subnormal) : rebiased;
        return std::bit_cast<float>((magnitude < 0x7c00u ? finite : special) | sign);
    }
};

/// The upper half of a binary32 value. Storage only: arithmetic happens in float.
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;
    /// Rounds to nearest, ties to even.
    RESIDUA_HOST_DEVICE explicit constexpr bfloat16(float value) : bits(encode(value)) {}
    RESIDUA_HOST_DEVICE constexpr operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }

    static constexpr float max = 0x1.FEp+127f;          ///< largest finite value
    static constexpr float min_positive = 0x1.0p-126f;  ///< smallest normal value

  private:
    RESIDUA_HOST_DEVICE static constexpr std::uint16_t encode(float value) {
        const std::uint32_t f = std::bit_cast<std::uint32_t>(value);
        if ((f & 0x7fffffffu) > 0x7f800000u)
            return static_cast<std::uint16_t>((f >> 16) | 0x40u);  // NaN stays NaN
        return static_cast<std::uint16_t>((f + 0x7fffu + ((f >> 16) & 1u)) >> 16);
    }
};

static_assert(sizeof(float16) == 2 && sizeof(bfloat16) == 2);

/// Element types of the solvers' arithmetic.
template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

/// Element types that activations and weights may arrive in.
template <class T>
concept Element = Real<T> || std::same_as<T, float16> || std::same_as<T, bfloat16>;

namespace detail {

/// True for every value but NaN and the infinities, also where the compiler assumes that those do not exist.
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool is_finite(float value) {
    return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool is_finite(double value) {
    return (std::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

}  // namespace detail

}  // namespace residua
