#include "residua/core/math.hpp"

#include <cmath>
#include <initializer_list>
#include <limits>

#include "catch.hpp"
#include "support/random.hpp"

using namespace residua;

TEST_CASE("power(float) is within p 1e-5 of std::pow in the normal range", "[core]") {
    // The documented bound: log2 x, of size up to 126, is rounded before it is multiplied by p.
    test::Random random(3);
    for (const float p : {0.5f, 1.0f, 2.0f, 2.4f, 3.0f, 4.0f, 16.0f}) {
        double worst = 0;
        int compared = 0;
        const auto compare = [&](float x) {
            const double exact = std::pow(double(x), double(p));
            if (exact < 0x1p-126 || exact > 0x1p+127) return;
            worst = std::max(worst, std::abs(double(detail::power(x, p)) / exact - 1));
            ++compared;
        };
        for (int i = 0; i < 50000; ++i)
            compare(static_cast<float>(std::exp2(252.0 * random.uniform() - 126.0)));
        // around 1, where the logarithm vanishes, and where its interval ends
        for (float x = 0.5f; x < 2.0f; x = std::nextafter(x * 1.0001f, 3.0f)) compare(x);
        CAPTURE(p);
        CHECK(compared > 3000);
        CHECK(worst <= double(p) * 1e-5);
    }
    CHECK(detail::power(1.0f, 2.4f) == 1.0f);
}

TEST_CASE("power(float) at its ends", "[core]") {
    CHECK(detail::power(0.0f, 2.4f) == 0.0f);
    CHECK(detail::power(-0.0f, 2.4f) == 0.0f);
    CHECK(detail::power(std::numeric_limits<float>::denorm_min(), 2.4f) == 0.0f);
    CHECK(detail::power(1e-30f, 2.4f) >= 0.0f);
    CHECK(detail::power(1e-30f, 2.4f) <= 0x1p-125f);
    CHECK(detail::power(1e30f, 2.4f) >= 0x1p+126f);
    CHECK(std::isfinite(detail::power(std::numeric_limits<float>::max(), 16.0f)));
    // grows with x, or a clip search would prefer larger errors
    float before = 0;
    bool grows = true;
    for (float x = 1e-12f; x < 1e12f; x *= 1.001f) {
        grows = grows && detail::power(x, 2.4f) >= before;
        before = detail::power(x, 2.4f);
    }
    CHECK(grows);
}

TEST_CASE("power(double) is std::pow", "[core]") {
    CHECK(detail::power(0.0, 2.4) == 0.0);
    CHECK(detail::power(3.7, 2.4) == std::pow(3.7, 2.4));
}

TEST_CASE("Ties round to even", "[core]") {
    CHECK(detail::round_to_even(0.5) == 0);
    CHECK(detail::round_to_even(1.5) == 2);
    CHECK(detail::round_to_even(2.5f) == 2);
    CHECK(detail::round_to_even(-0.5f) == 0);
    CHECK(detail::round_to_even(-1.5) == -2);
    CHECK(detail::round_to_even(2.500001) == 3);
}

TEST_CASE("clamp turns NaN into the lower end", "[core]") {
    CHECK(detail::clamp(5.0, 0.0, 3.0) == 3.0);
    CHECK(detail::clamp(-5.0f, 0.0f, 3.0f) == 0.0f);
    CHECK(detail::clamp(1.0f, 0.0f, 3.0f) == 1.0f);
    CHECK(detail::clamp(std::numeric_limits<double>::quiet_NaN(), 1.0, 3.0) == 1.0);
    CHECK(detail::clamp(std::numeric_limits<float>::infinity(), 1.0f, 3.0f) == 3.0f);
}
