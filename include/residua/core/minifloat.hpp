#pragma once

#include <bit>

#include "residua/core/math.hpp"

namespace residua {

/// FP4 E2M1 (OCP Microscaling Formats v1.0, 5.3.3): sign, 2 bits of exponent, 1 of mantissa; neither infinity
/// nor NaN. The magnitudes are 0, 0.5, 1, 1.5, 2, 3, 4 and 6; a code is the format's own bit pattern.
struct E2M1 {
    static constexpr int codes = 16;
    static constexpr float max = 6.0f;

    /// Nearest code, ties to even, saturating. Never the code of -0; NaN becomes 0.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr int encode(T x) {
        const T a = detail::magnitude_of(x);
        const int magnitude = (a > T(0.25)) + (a >= T(0.75)) + (a > T(1.25)) + (a >= T(1.75)) + (a > T(2.5)) +
                              (a >= T(3.5)) + (a > T(5));
        const int negative = int(x < T(0)) & int(magnitude > 0);
        return magnitude | (negative << 3);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr T decode(int code) {
        const int m = code & 7;
        const int halves = m + (m > 4) + (m > 5) + 3 * (m > 6);
        const int sign = 1 - 2 * ((code >> 3) & 1);
        return T(0.5) * T(sign * halves);
    }
};

/// FP8 E4M3 (OCP 8-bit Floating Point v1.0): sign, 4 bits of exponent with bias 7, 3 of mantissa; largest
/// value 448, subnormals from 2^-9, no infinity. A code is the format's own bit pattern.
struct E4M3 {
    static constexpr int codes = 256;
    static constexpr float max = 448.0f;
    static constexpr float min_positive = 0x1.0p-9f;

    /// Nearest code, ties to even, saturating, also for NaN. Never a code of NaN or -0.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static int encode(T x) {
        const T a = detail::saturate(detail::magnitude_of(x), T(max));
        // 2^(e-127) <= a < 2^(e-126), and the same step for all subnormals
        const int e_float = std::bit_cast<std::int32_t>(static_cast<float>(a)) >> 23;
        const int e = e_float > 121 ? e_float : 121;
        const float steps_per_unit = std::bit_cast<float>((257 - e) << 23);
        const int steps = static_cast<int>(detail::round_to_even(a * T(steps_per_unit)));
        const int magnitude = steps + 8 * (e - 121);
        const int negative = int(x < T(0)) & int(magnitude > 0);
        return magnitude | (negative << 7);
    }

    /// The two codes of NaN decode to +-448.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr T decode(int code) {
        const int given = code & 0x7f;
        const int m = given < 0x7e ? given : 0x7e;
        const int e = m >> 3 > 1 ? m >> 3 : 1;  // 1 for subnormals too: they have the same step
        const int sign = 1 - ((code >> 6) & 2);
        const float step = std::bit_cast<float>((e + 117) << 23);  // 2^(e - 10)
        return T(static_cast<float>(sign * (m - 8 * (e - 1))) * step);
    }
};

/// FP8 E8M0 (OCP Microscaling Formats v1.0, 5.4.1): powers of two 2^(code - 127), for scales.
///
/// Codes 0 (2^-127, subnormal as a float) and 255 (NaN) are not used here.
struct E8M0 {
    static constexpr int min_code = 1;
    static constexpr int max_code = 254;

    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr int encode(float power_of_two) {
        return static_cast<int>(std::bit_cast<std::uint32_t>(power_of_two) >> 23);
    }
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr float decode(int code) {
        return std::bit_cast<float>(static_cast<std::int32_t>(code) << 23);
    }
};

namespace detail {

/// True for 2^k, -126 <= k <= 126: the product with, and the quotient by, such a number is exact.
[[nodiscard]] constexpr bool is_power_of_two(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    return (bits & 0x807fffffu) == 0 && bits >= 0x00800000u && bits <= 0x7e800000u;
}

}  // namespace detail

}  // namespace residua
