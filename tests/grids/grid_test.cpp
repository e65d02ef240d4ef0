// Grids by hand, and what must hold for any group.

#include <limits>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

constexpr Symmetry symmetries[] = {Symmetry::None, Symmetry::Restricted, Symmetry::FullRange};
constexpr ScaleType scale_types[] = {ScaleType::Float32, ScaleType::Float16, ScaleType::BFloat16};

/// What a backend fits to one group, given as the columns of one output row.
template <class Tag>
reference::Params fit(const IntegerGrid& grid, const std::vector<double>& group,
                      const std::vector<double>& weights = {}) {
    using T = typename Tag::Scalar;
    auto& backend = Tag::get();
    const Index n = static_cast<Index>(group.size());
    const auto columns = upload<Tag>(reference::Matrix(n, 1, group));
    auto scales = backend.template allocate<T>(1, 1);
    auto zeros = backend.template allocate<T>(1, 1);
    const std::vector<std::vector<Index>> members = {detail::natural_order(n)};
    auto column_weights = backend.template allocate<T>(1, n);
    if (!weights.empty()) backend.write({weights.begin(), weights.end()}, column_weights.view());
    const MatrixView<const T> given = weights.empty() ? MatrixView<const T>() : column_weights.view();
    backend.fit(grid, columns.view(), given, members, scales.view(), zeros.view());
    return {double(backend.read(scales.view())[0]), double(backend.read(zeros.view())[0])};
}

double error_of(const IntegerGrid& grid, const reference::Params& params, const std::vector<double>& group) {
    double error = 0;
    for (const double w : group) {
        const double q = reference::decode(reference::encode(w, params, grid.bits), params);
        error += std::pow(std::abs(w - q), grid.clip.norm);
    }
    return error;
}

std::vector<double> normal_group(Index size, std::uint64_t seed) {
    Random random(seed);
    std::vector<double> group;
    for (Index i = 0; i < size; ++i) group.push_back(to_float(random.normal()));
    return group;
}

}  // namespace

TEMPLATE_TEST_CASE("Fits by hand", "[core][grid]", RESIDUA_TEST_BACKENDS) {
    const std::vector<double> group = {-1.0, 0.25, 2.0, 0.5};

    const auto asymmetric = fit<TestType>({.bits = 2, .symmetry = Symmetry::None}, group);
    CHECK(asymmetric.scale == 1.0);  // (2 + 1) / 3
    CHECK(asymmetric.zero == 1.0);
    const auto restricted = fit<TestType>({.bits = 2, .symmetry = Symmetry::Restricted}, group);
    CHECK(restricted.scale == 2.0);  // 2 / (2 - 1)
    CHECK(restricted.zero == 2.0);
    const auto full = fit<TestType>({.bits = 2, .symmetry = Symmetry::FullRange}, group);
    CHECK(full.scale == double(4.0f / 3.0f));
    CHECK(full.zero == 2.0);

    SECTION("the range always includes zero") {
        const auto positive = fit<TestType>({.bits = 4, .symmetry = Symmetry::None}, {3.0, 30.0});
        CHECK(positive.scale == 2.0);
        CHECK(positive.zero == 0.0);
        const auto negative = fit<TestType>({.bits = 4, .symmetry = Symmetry::None}, {-30.0, -3.0});
        CHECK(negative.scale == 2.0);
        CHECK(negative.zero == 15.0);
    }
    SECTION("eight bits") {
        const auto eight = fit<TestType>({.bits = 8, .symmetry = Symmetry::Restricted}, {127.0, -3.0});
        CHECK(eight.scale == 1.0);
        CHECK(eight.zero == 128.0);
    }
}

TEST_CASE("Codes by hand", "[core][grid]") {
    const IntegerGrid grid{.bits = 3};
    const GridParams<double> p{0.5, 3};
    CHECK(grid.levels() == 8);
    CHECK(grid.encode(0.0, p) == 3);
    CHECK(grid.encode(0.5, p) == 4);
    CHECK(grid.encode(0.74, p) == 4);
    CHECK(grid.encode(0.76, p) == 5);
    CHECK(grid.encode(1e30, p) == 7);
    CHECK(grid.encode(-1e30, p) == 0);
    CHECK(grid.encode(std::numeric_limits<double>::infinity(), p) == 7);
    CHECK(grid.encode(std::numeric_limits<double>::quiet_NaN(), p) >= 0);
    CHECK(grid.encode(std::numeric_limits<double>::quiet_NaN(), p) < 8);
    CHECK(grid.decode(0, p) == -1.5);
    CHECK(grid.decode(7, p) == 2.0);
}

TEMPLATE_TEST_CASE("Every code decodes and encodes to itself", "[core][grid]", RESIDUA_TEST_SCALARS) {
    Random random(5);
    std::size_t wrong = 0;
    for (int bits = 2; bits <= 8; ++bits) {
        for (const Symmetry symmetry : symmetries) {
            for (const ScaleType type : scale_types) {
                for (int i = 0; i < 200; ++i) {
                    const IntegerGrid grid{.bits = bits, .symmetry = symmetry, .scale_type = type};
                    const double size = std::exp2(40 * random.uniform() - 30);
                    const auto low = static_cast<TestType>(-size * random.uniform());
                    const auto high = static_cast<TestType>(size * random.uniform());
                    const auto p = grid.params(low, high);
                    wrong += !(p.scale > 0) || p.zero != std::round(p.zero) || p.zero < 0 ||
                             p.zero > TestType(grid.levels() - 1);
                    for (int code = 0; code < grid.levels(); ++code)
                        wrong += grid.encode(grid.decode(code, p), p) != code;
                }
            }
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("Encoding finds the nearest grid point", "[core][grid]", RESIDUA_TEST_SCALARS) {
    Random random(6);
    const IntegerGrid grid{.bits = 4, .symmetry = Symmetry::None};
    for (int i = 0; i < 300; ++i) {
        const auto p =
            grid.params(static_cast<TestType>(-random.uniform()), static_cast<TestType>(random.uniform()));
        const auto x = static_cast<TestType>(3 * random.uniform() - 1.5);
        double nearest = std::numeric_limits<double>::infinity();
        for (int code = 0; code < 16; ++code)
            nearest = std::min(nearest, std::abs(double(x) - double(grid.decode(code, p))));
        const double found = std::abs(double(x) - double(grid.decode(grid.encode(x, p), p)));
        CHECK(found <= nearest * (1 + 1e-5) + 1e-7);
    }
}

TEMPLATE_TEST_CASE("Without clip search every weight is within half a step", "[core][grid]",
                   RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted}) {
        for (const ScaleType type : scale_types) {
            const IntegerGrid grid{.bits = 4, .symmetry = symmetry, .scale_type = type};
            const auto group = normal_group(64, 9);
            const auto p = fit<TestType>(grid, group);
            // a scale rounded down leaves the ends of the range outside, by at most its relative rounding;
            // the rounding of an asymmetric zero moves the range by up to another half step
            const double rounding = type == ScaleType::BFloat16  ? 0x1p-8
                                    : type == ScaleType::Float16 ? 0x1p-11
                                                                 : 0x1p-23;
            const double shift = symmetry == Symmetry::None ? 0.5 : 0.0;
            for (const double w : group) {
                const double q = reference::decode(reference::encode(w, p, grid.bits), p);
                CHECK(std::abs(w - q) <= p.scale * (0.5 + shift + 16 * rounding));
            }
        }
    }
}

TEMPLATE_TEST_CASE("Scales are what a file stores", "[core][grid]", RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : symmetries) {
        for (const bool clip : {false, true}) {
            IntegerGrid grid{.bits = 3, .symmetry = symmetry};
            grid.clip.enabled = clip;
            const auto group = normal_group(32, 77);
            grid.scale_type = ScaleType::Float16;
            const auto half = static_cast<float>(fit<TestType>(grid, group).scale);
            CHECK(float(float16(half)) == half);
            grid.scale_type = ScaleType::BFloat16;
            const auto brain = static_cast<float>(fit<TestType>(grid, group).scale);
            CHECK(float(bfloat16(brain)) == brain);
            grid.scale_type = ScaleType::Float32;
            const double single = fit<TestType>(grid, group).scale;
            CHECK(double(static_cast<float>(single)) == single);
            if (!clip) {
                CHECK(half == float(float16(static_cast<float>(single))));
                CHECK(brain == float(bfloat16(static_cast<float>(single))));
            }
        }
    }
}

TEMPLATE_TEST_CASE("Scales stay within the positive range of their type", "[core][grid]",
                   RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : symmetries) {
        IntegerGrid grid{.bits = 4, .symmetry = symmetry, .scale_type = ScaleType::Float16};
        CHECK(fit<TestType>(grid, {1e-20, -1e-20}).scale == 0x1p-24);
        CHECK(fit<TestType>(grid, {1e20, -1e20}).scale == 65504);
        grid.scale_type = ScaleType::BFloat16;
        CHECK(fit<TestType>(grid, {to_float(1e-40), 0}).scale == 0x1p-126);
        grid.scale_type = ScaleType::Float32;
        CHECK(fit<TestType>(grid, {to_float(1e-40), 0}).scale >= 0x1p-126);
        const double huge = fit<TestType>(grid, {to_float(3.4e38), to_float(-3.4e38)}).scale;
        CHECK(std::isfinite(huge));
        CHECK(huge > 2e37);
        for (const double zero :
             {fit<TestType>(grid, {1e20, -1e20}).zero, fit<TestType>(grid, {-1e20}).zero}) {
            CHECK(zero >= 0);
            CHECK(zero <= 15);
        }
    }
}

TEMPLATE_TEST_CASE("Groups of zeros, of one value and of one column", "[core][grid]", RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : symmetries) {
        for (const bool clip : {false, true}) {
            IntegerGrid grid{.bits = 4, .symmetry = symmetry};
            grid.clip.enabled = clip;
            const auto zeros = fit<TestType>(grid, std::vector<double>(16, 0.0));
            CHECK(zeros.scale == 1);
            CHECK(reference::decode(reference::encode(0, zeros, 4), zeros) == 0);
            for (const double value : {0.7, -0.7}) {
                for (const std::size_t size : {1u, 16u}) {
                    const auto p = fit<TestType>(grid, std::vector<double>(size, to_float(value)));
                    const double q = reference::decode(reference::encode(value, p, 4), p);
                    // exact, but for the half step that a full range leaves at its upper end
                    const double within = symmetry == Symmetry::FullRange ? 0.7 / 15 : 1e-7;
                    CHECK(std::abs(q - value) <= within * (1 + 1e-6));
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("The clip search finds the best of its candidates", "[core][grid]",
                   RESIDUA_TEST_BACKENDS) {
    constexpr bool is_double = std::is_same_v<typename TestType::Scalar, double>;
    for (const Symmetry symmetry : symmetries) {
        for (const int bits : {2, 4}) {
            for (std::uint64_t seed = 1; seed <= 10; ++seed) {
                IntegerGrid grid{.bits = bits, .symmetry = symmetry};
                const auto group = normal_group(1 + Index(seed * 13), seed);
                const auto open = fit<TestType>(grid, group);
                grid.clip = {.enabled = true, .norm = seed % 2 == 0 ? 2.4 : 2.0, .steps = 80, .shrink = 0.8};
                const auto clipped = fit<TestType>(grid, group);
                const auto expected = reference::fit(grid, group);
                // float: two candidates may be equally good up to the rounding of their sums
                const double slack = is_double ? 1 : 1 + 1e-4;
                CHECK(error_of(grid, clipped, group) <= slack * error_of(grid, open, group));
                CHECK(error_of(grid, clipped, group) <= slack * error_of(grid, expected, group));
                CHECK(clipped.scale <= open.scale);
                if (is_double) CHECK(clipped.scale == expected.scale);
            }
        }
    }
}

TEMPLATE_TEST_CASE("The clip search tries its last candidate", "[core][grid]", RESIDUA_TEST_BACKENDS) {
    std::vector<double> group(50, 0.75);
    group.push_back(1.0);
    IntegerGrid grid{.bits = 2, .symmetry = Symmetry::Restricted};
    grid.clip = {.enabled = true, .norm = 2.4, .steps = 2, .shrink = 0.5};
    CHECK(fit<TestType>(grid, group).scale == 0.75);
    grid.clip.steps = 1;
    CHECK(fit<TestType>(grid, group).scale == 1.0);
}

TEMPLATE_TEST_CASE("Without a recurrence the search by loss weighs squared errors", "[core][grid]",
                   RESIDUA_TEST_BACKENDS) {
    constexpr bool is_double = std::is_same_v<typename TestType::Scalar, double>;
    // float: two candidates may be equally good up to the rounding of their sums
    constexpr double slack = is_double ? 1 : 1 + 1e-5;
    double by_norm = 0;
    double by_loss = 0;
    for (const Symmetry symmetry : symmetries) {
        for (const int bits : {2, 4}) {
            for (std::uint64_t seed = 1; seed <= 10; ++seed) {
                IntegerGrid grid{.bits = bits, .symmetry = symmetry, .clip = {.enabled = true}};
                const auto group = normal_group(1 + Index(seed * 13), seed);
                std::vector<double> weights;
                for (const double w : normal_group(Index(group.size()), 100 + seed))
                    weights.push_back(to_float(std::exp(w)));
                const auto loss = [&](const reference::Params& p) {
                    return reference::rounding_loss(group, p, grid, weights);
                };
                const double norm = loss(fit<TestType>(grid, group));
                grid.clip.search = ScaleSearch::Loss;
                const auto found = fit<TestType>(grid, group, weights);
                const auto expected = reference::fit_by_loss(grid, group, weights, {});
                CHECK(loss(found) <= slack * loss(expected));
                CHECK(loss(found) <= slack * norm);
                if (is_double) CHECK(found.scale == expected.scale);
                if (is_double) CHECK(found.zero == expected.zero);
                by_norm += norm;
                by_loss += loss(found);
                const std::vector<double> ones(group.size(), 1.0);
                CHECK(fit<TestType>(grid, group).scale == fit<TestType>(grid, group, ones).scale);
            }
        }
    }
    CHECK(by_loss < 0.98 * by_norm);  // there is something to find: measured 0.971
}

TEMPLATE_TEST_CASE("A negative zero is a zero", "[core][grid]", RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : symmetries) {
        IntegerGrid grid{.bits = 2, .symmetry = symmetry};
        grid.clip.enabled = true;
        auto group = normal_group(100, 3);
        group[40] = 0.0;
        const auto positive = fit<TestType>(grid, group);
        group[40] = -0.0;
        const auto negative = fit<TestType>(grid, group);
        CHECK(negative.scale == positive.scale);
        CHECK(negative.zero == positive.zero);
        grid.clip.enabled = false;
        CHECK(positive.scale < fit<TestType>(grid, group).scale);  // there is something to clip
    }
}

TEST_CASE("The clip search's candidates are 1 - i/100 by default", "[core][grid]") {
    ClipSearch clip;
    CHECK(clip.candidates() == 1);
    clip.enabled = true;
    REQUIRE(clip.candidates() == 80);
    for (int i = 0; i < 80; ++i) CHECK(std::abs(clip.factor(i) - (1 - i / 100.0)) < 1e-15);
    CHECK(clip.norm == 2.4);
}

TEST_CASE("Unusable grids are refused", "[core][grid]") {
    const auto refusal = [](IntegerGrid grid) { return message_of([&] { grid.validate(); }); };
    CHECK(refusal({.bits = 4}).empty());
    CHECK(refusal({.bits = 1}) == "residua: IntegerGrid: bits is 1, expected 2 to 8");
    CHECK(contains(refusal({.bits = 9}), "bits is 9"));
    const auto clip_refusal = [&](ClipSearch clip) { return refusal({.bits = 4, .clip = clip}); };
    CHECK(contains(clip_refusal({.norm = 0}), "norm is 0, expected a number in (0, 16]"));
    CHECK(contains(clip_refusal({.norm = std::numeric_limits<double>::quiet_NaN()}), "norm is nan"));
    CHECK(contains(clip_refusal({.steps = 0}), "steps is 0, expected 1 to 10000"));
    CHECK(contains(clip_refusal({.survivors = 0}), "survivors is 0, expected 1 to 50"));
    CHECK(contains(clip_refusal({.survivors = 51}), "survivors is 51"));
    CHECK(contains(clip_refusal({.shrink = 1}), "shrink is 1, expected a number in (0, 1)"));
}
