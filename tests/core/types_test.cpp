// 16-bit floats against a slow decoder and encoder that know nothing but the formats' definitions.

#include <cmath>
#include <cstring>
#include <limits>

#include "catch.hpp"
#include "residua/core/types.hpp"
#include "support/random.hpp"

using namespace residua;

namespace {

struct Format {
    int exponent_bits;
    int mantissa_bits;
};
constexpr Format half{5, 10};
constexpr Format brain{8, 7};

/// sign * 2^(e - bias) * (1 + m / 2^k), or sign * 2^(1 - bias) * m / 2^k; infinity and NaN in the last
/// exponent.
double decode_slowly(unsigned bits, Format f) {
    const int last = (1 << f.exponent_bits) - 1;
    const int bias = last / 2;
    const int exponent = int(bits >> f.mantissa_bits) & last;
    const int mantissa = int(bits & ((1u << f.mantissa_bits) - 1));
    const double sign = bits & 0x8000u ? -1 : 1;
    if (exponent == last)
        return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sign * std::numeric_limits<double>::infinity();
    if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - f.mantissa_bits);
    return sign * std::ldexp(mantissa + (1 << f.mantissa_bits), exponent - bias - f.mantissa_bits);
}

/// The nearest of the two neighbours among all finite values, ties to the even code; infinity from half a
/// unit beyond the largest.
template <class F>
void check_encode(float value, Format f) {
    const unsigned infinite = ((1u << f.exponent_bits) - 1) << f.mantissa_bits;
    const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
    const double magnitude = std::abs(double(value));
    unsigned below = 0;  // largest code whose value is <= magnitude
    for (unsigned step = 0x4000u; step != 0; step /= 2) {
        if (below + step < infinite && decode_slowly(below + step, f) <= magnitude) below += step;
    }
    const double low = decode_slowly(below, f);
    // the next value, as if the exponent went on
    const double high =
        below + 1 == infinite ? 2 * low - decode_slowly(below - 1, f) : decode_slowly(below + 1, f);
    unsigned expected = below;
    if (magnitude - low > high - magnitude || (magnitude - low == high - magnitude && below % 2 == 1))
        ++expected;
    const unsigned encoded = F(value).bits;
    if (encoded != (expected | sign)) {
        CAPTURE(value, encoded, expected | sign);
        FAIL_CHECK("rounded to another value");
    }
}

template <class F>
void check_all_codes(Format f) {
    std::size_t wrong = 0;
    for (unsigned bits = 0; bits < 0x10000u; ++bits) {
        F number;
        number.bits = static_cast<std::uint16_t>(bits);
        const float value = number;
        const double expected = decode_slowly(bits, f);
        if (std::isnan(expected)) {
            wrong += !std::isnan(value);
            wrong += !std::isnan(float(F(value)));
            wrong += (F(value).bits & 0x8000u) != (bits & 0x8000u);
        } else {
            wrong += double(value) != expected || std::signbit(value) != std::signbit(expected);
            wrong += F(value).bits != bits;
        }
    }
    CHECK(wrong == 0);
}

template <class F>
void check_rounding(Format f) {
    // every value, its neighbours in float, and the points halfway to the next value, with theirs
    for (unsigned bits = 0; bits + 1 < 0x8000u; ++bits) {
        const double value = decode_slowly(bits, f);
        const double next = decode_slowly(bits + 1, f);
        if (!std::isfinite(next)) continue;
        for (const double point : {value, 0.5 * value + 0.5 * next}) {
            const auto exact = static_cast<float>(point);
            for (const float x : {exact, std::nextafter(exact, 0.0f), std::nextafter(exact, INFINITY)}) {
                check_encode<F>(x, f);
                check_encode<F>(-x, f);
            }
        }
    }
    test::Random random(1);
    for (int i = 0; i < 200000; ++i) {  // any float
        const auto bits = static_cast<std::uint32_t>(random.bits());
        float value = 0;
        std::memcpy(&value, &bits, sizeof value);
        if (std::isfinite(value)) check_encode<F>(value, f);
    }
}

}  // namespace

TEST_CASE("float16 decodes and encodes all of its codes", "[core]") { check_all_codes<float16>(half); }

TEST_CASE("bfloat16 decodes and encodes all of its codes", "[core]") { check_all_codes<bfloat16>(brain); }

TEST_CASE("float16 rounds to nearest, ties to even", "[core]") {
    check_rounding<float16>(half);
    CHECK(float(float16(65519.996f)) == 65504.0f);
    CHECK(float(float16(65520.0f)) == INFINITY);
    CHECK(float(float16(-1e30f)) == -INFINITY);
    CHECK(float(float16(INFINITY)) == INFINITY);
    CHECK(float16(0x1p-25f).bits == 0);
    CHECK(float16(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
    CHECK(float16(0x1p-149f).bits == 0);
    CHECK(float16(-0.0f).bits == 0x8000u);
    CHECK(float16::max == 65504.0f);
    CHECK(float(float16(float16::min_positive)) == 0x1p-24f);
}

TEST_CASE("bfloat16 rounds to nearest, ties to even", "[core]") {
    check_rounding<bfloat16>(brain);
    CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80u);
    CHECK(float(bfloat16(INFINITY)) == INFINITY);
    CHECK(float(bfloat16(bfloat16::max)) == bfloat16::max);
    CHECK(bfloat16(bfloat16::max).bits == 0x7f7fu);
    CHECK(bfloat16(bfloat16::min_positive).bits == 0x0080u);
}

TEST_CASE("Conversions are constant expressions", "[core]") {
    static_assert(float(float16(1.5f)) == 1.5f);
    static_assert(float16(0x1p-24f).bits == 1);
    static_assert(float(bfloat16(-2.0f)) == -2.0f);
    static_assert(detail::is_finite(1.0f) && !detail::is_finite(std::numeric_limits<float>::infinity()));
    static_assert(!detail::is_finite(std::numeric_limits<double>::quiet_NaN()) && detail::is_finite(-1e308));
    CHECK_FALSE(detail::is_finite(-std::numeric_limits<double>::infinity()));
    CHECK_FALSE(detail::is_finite(std::numeric_limits<float>::quiet_NaN()));
    CHECK(detail::is_finite(std::numeric_limits<float>::denorm_min()));
    CHECK(detail::is_finite(std::numeric_limits<float>::max()));
}
