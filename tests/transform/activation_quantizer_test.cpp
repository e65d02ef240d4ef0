#include "residua/transform/activation_quantizer.hpp"

#include "catch.hpp"
#include "support/random.hpp"

using namespace residua;
using residua::test::Random;

namespace {

/// The equations of the published code for one group, in double but for the scale, which is a float.
std::vector<double> reference(const std::vector<double>& x, const ActivationQuantizer& q) {
    double low = 0;
    double high = 0;
    for (const double v : x) low = std::min(low, v), high = std::max(high, v);
    low *= q.clip_ratio;
    high *= q.clip_ratio;
    std::vector<double> y(x.size());
    if (low == 0 && high == 0) return y;
    const double half = std::pow(2.0, q.bits - 1);
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (q.symmetry == Symmetry::None) {
            const double scale = static_cast<float>((high - low) / (2 * half - 1));
            const double zero = std::nearbyint(-low / scale);
            y[i] = scale * (std::clamp(std::nearbyint(x[i] / scale) + zero, 0.0, 2 * half - 1) - zero);
        } else {
            const double scale = static_cast<float>(std::max(high, -low) / (half - 1));
            y[i] = scale * std::clamp(std::nearbyint(x[i] / scale), -half, half - 1);
        }
    }
    return y;
}

template <class T>
std::vector<T> random_activations(Index count, std::uint64_t seed, double shift = 0) {
    Random random(seed);
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& v : values) v = static_cast<T>(random.normal() + shift);
    return values;
}

}  // namespace

TEMPLATE_TEST_CASE("activations are rounded as by the published equations", "[transform]", float, double) {
    constexpr Index rows = 5;
    for (const int bits : {2, 3, 4, 8}) {
        for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted}) {
            for (const double clip : {1.0, 0.9}) {
                for (const auto& [cols, group] :
                     {std::pair<Index, Index>{100, -1}, {100, 32}, {37, 64}, {3, 1}}) {
                    CAPTURE(bits, int(symmetry), clip, cols, group);
                    const ActivationQuantizer q = {bits, group, symmetry, clip};
                    const Index stride = cols + 1;
                    const auto x = random_activations<TestType>(rows * stride, 3, 0.3);
                    auto y = x;
                    q.apply(MatrixView<TestType>(y.data(), rows, cols, stride));
                    int different = 0;
                    double worst = 0;
                    for (Index i = 0; i < rows; ++i) {
                        const Index width = group < 0 ? cols : group;
                        for (Index j = 0; j < cols; j += width) {
                            const auto first = x.begin() + i * stride + j;
                            const std::vector<double> values(first, first + std::min(width, cols - j));
                            const std::vector<double> expected = reference(values, q);
                            double absmax = 0;
                            for (const double v : values) absmax = std::max(absmax, std::abs(v));
                            for (std::size_t k = 0; k < expected.size(); ++k) {
                                const double error =
                                    std::abs(double(y[std::size_t(i * stride + j) + k]) - expected[k]) /
                                    absmax;
                                different += error > 1e-6;  // another code: x / scale within an ulp of a tie
                                worst = std::max(worst, error);
                            }
                        }
                        CHECK(y[std::size_t(i * stride + cols)] == x[std::size_t(i * stride + cols)]);
                    }
                    CHECK(different <= (std::is_same_v<TestType, float> && bits == 8 ? 1 : 0));
                    CHECK(worst < 3.0 / (1 << bits));
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("rounding activations twice is rounding once", "[transform]", float, double) {
    // without clipping the ends of the range are codes up to rounding, and code 0 or 2^b - 1 keeps them
    const ActivationQuantizer q = {.bits = 4, .symmetry = Symmetry::Restricted};
    auto x = random_activations<TestType>(64 * 40, 5);
    q.apply(MatrixView<TestType>(x.data(), 64, 40));
    auto y = x;
    q.apply(MatrixView<TestType>(y.data(), 64, 40));
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(double(y[i]) == Approx(double(x[i])).epsilon(1e-6));
}

TEST_CASE("at most 2^b values of a token are left, zero among them", "[transform]") {
    for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted}) {
        auto x = random_activations<float>(1000, 9, 2.0);
        x[3] = 0;
        ActivationQuantizer{.bits = 3, .symmetry = symmetry}.apply(MatrixView<float>(x.data(), 1, 1000));
        CHECK(x[3] == 0);
        std::sort(x.begin(), x.end());
        CHECK(std::unique(x.begin(), x.end()) - x.begin() <= 8);
    }
}

TEST_CASE("edges of activation rounding", "[transform]") {
    for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted}) {
        const ActivationQuantizer q = {.bits = 4, .symmetry = symmetry};

        SECTION("zeros stay zeros") {
            std::vector<float> x(70, 0.0f);
            q.apply(MatrixView<float>(x.data(), 2, 35));
            CHECK(x == std::vector<float>(70, 0.0f));
        }
        SECTION("one feature keeps its value") {
            std::vector<float> x = {3.7f, -2.0f, 0.0f};
            q.apply(MatrixView<float>(x.data(), 3, 1));
            CHECK(x[0] == Approx(3.7f));
            CHECK(x[1] == Approx(-2.0f));
            CHECK(x[2] == 0.0f);
        }
        SECTION("tokens do not see each other") {
            std::vector<float> x = {1e6f, -1e6f, 0.5f, -1.0f};
            q.apply(MatrixView<float>(x.data(), 2, 2));
            CHECK(x[2] == Approx(0.5f).margin(0.08));
            CHECK(x[3] == Approx(-1.0f).margin(0.04));
        }
        SECTION("what is not finite spoils its group, and no other") {
            for (const float bad :
                 {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                  -std::numeric_limits<float>::infinity()}) {
                std::vector<float> x(120, 1.0f);
                x[41] = bad;
                ActivationQuantizer grouped = q;
                grouped.group_size = 20;
                grouped.apply(MatrixView<float>(x.data(), 2, 60));
                for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::isnan(x[i]) == (i >= 40 && i < 60));
            }
        }
        SECTION("huge and tiny values stay finite") {
            std::vector<float> x = {3e38f, -3e38f, 1e-45f};
            std::vector<float> tiny = {1e-45f, -1e-45f};
            q.apply(MatrixView<float>(x.data(), 1, 3));
            q.apply(MatrixView<float>(tiny.data(), 1, 2));
            for (const float v : x) CHECK(std::isfinite(v));
            for (const float v : tiny) CHECK(std::isfinite(v));
        }
    }
}

TEST_CASE("an activation quantizer refuses what it cannot do", "[transform]") {
    std::vector<float> x(8);
    const MatrixView<float> view(x.data(), 2, 4);
    CHECK_THROWS_AS(ActivationQuantizer{.bits = 1}.apply(view), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{.bits = 9}.apply(view), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{.group_size = 0}.apply(view), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{.clip_ratio = 0}.apply(view), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{.clip_ratio = 1.1}.apply(view), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{}.apply(MatrixView<float>(nullptr, 2, 4)), std::invalid_argument);
    CHECK_THROWS_AS(ActivationQuantizer{}.apply(MatrixView<float>(x.data(), 2, 4, 3)), std::invalid_argument);
    ActivationQuantizer{}.apply(MatrixView<float>(nullptr, 0, 4));
}
