#include <cmath>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "residua/grids/codebook_grid.hpp"
#include "residua/grids/float_grid.hpp"
#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "support/layer.hpp"

using namespace residua;
using residua::test::message_of;
using residua::test::Random;

namespace {

template <class G>
G with_clip(G grid) {
    grid.clip.enabled = true;
    return grid;
}

/// The requirements of the Grid concept, by brute force over all codes.
template <class T, class G>
void check_contract(const G& grid) {
    Random random(7);
    grid.validate();
    std::vector<std::pair<T, T>> ranges = {
        {T(0), T(0)}, {T(-1), T(0)}, {T(0), T(3)}, {T(-1e-9), T(2e-9)}, {T(-3e4), T(6e4)}};
    for (int i = 0; i < 200; ++i)
        ranges.emplace_back(T(-std::exp(random.normal())), T(std::exp(random.normal())));
    for (const auto& [low, high] : ranges) {
        CAPTURE(low, high);
        const GridParams<T> p = grid.params(low, high);
        REQUIRE(std::isfinite(p.scale));
        REQUIRE(p.scale > 0);
        REQUIRE(std::isfinite(p.zero));
        std::vector<T> points;
        for (int code = 0; code < grid.levels(); ++code) {
            const T value = grid.decode(code, p);
            REQUIRE(std::isfinite(value));
            REQUIRE(grid.decode(grid.encode(value, p), p) == value);
            points.push_back(value);
        }
        for (int i = 0; i < 50; ++i) {
            const T x = T(1.2) * (low + (high - low) * T(random.uniform()));
            const int code = grid.encode(x, p);
            REQUIRE(code >= 0);
            REQUIRE(code < grid.levels());
            T nearest = std::abs(points[0] - x);
            for (const T value : points) nearest = std::min(nearest, std::abs(value - x));
            REQUIRE(std::abs(grid.decode(code, p) - x) <= nearest + T(1e-5) * (high - low));
        }
        for (const T odd : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                            -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::max(), T(-0.0)}) {
            REQUIRE(grid.encode(odd, p) >= 0);
            REQUIRE(grid.encode(odd, p) < grid.levels());
        }
    }
}

template <class G>
void check(const G& grid) {
    check_contract<float>(grid);
    check_contract<double>(grid);
    check_contract<float>(with_clip(grid));
}

CodebookGrid<200> uneven_codebook() {
    CodebookGrid<200> grid{};
    for (int i = 0; i < 200; ++i) grid.values[i] = std::sinh(0.05f * static_cast<float>(i - 120));
    return grid;
}

}  // namespace

TEST_CASE("every grid keeps the contract", "[grids]") {
    SECTION("fp4") { check(FP4Grid{}); }
    SECTION("fp4, f16 scales") { check(FP4Grid{.scale_type = ScaleType::Float16}); }
    SECTION("fp8") { check(FP8Grid{}); }
    SECTION("mxfp4") { check(MXFP4Grid{}); }
    SECTION("nvfp4") { check(NVFP4Grid{.tensor_scale = 0x1p-8f}); }
    SECTION("nf4") { check(NF4Grid{}); }
    SECTION("q4_0") { check(Q4_0Grid{}); }
    SECTION("q4_1") { check(Q4_1Grid{}); }
    SECTION("q5_0") { check(Q5_0Grid{}); }
    SECTION("q5_1") { check(Q5_1Grid{}); }
    SECTION("q8_0") { check(Q8_0Grid{}); }
    SECTION("three values") { check(CodebookGrid<3>{.values = {-1, 0, 1}}); }
    SECTION("200 values") { check(uneven_codebook()); }
}

TEST_CASE("E2M1 by the specification", "[grids]") {
    const float values[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    for (int code = 0; code < 8; ++code) {
        CHECK(E2M1::decode<float>(code) == values[code]);
        CHECK(E2M1::decode<float>(code + 8) == -values[code]);
        CHECK(E2M1::encode(values[code]) == code);
        CHECK(E2M1::encode(-values[code]) == (code == 0 ? 0 : code + 8));
    }
    for (int code = 0; code < 7; ++code) {  // ties to even mantissas
        const float middle = (values[code] + values[code + 1]) / 2;
        CHECK(E2M1::encode(middle) == code + code % 2);
        CHECK(E2M1::encode(std::nextafter(middle, 0.0f)) == code);
        CHECK(E2M1::encode(std::nextafter(middle, 9.0f)) == code + 1);
    }
    CHECK(E2M1::encode(1e30f) == 7);
    CHECK(E2M1::encode(-1e30) == 15);
    CHECK(E2M1::encode(std::nanf("")) == 0);
}

TEST_CASE("E4M3 by the specification", "[grids]") {
    std::vector<double> values;
    for (int e = 0; e < 16; ++e) {
        for (int m = 0; m < 8; ++m)
            values.push_back(e == 0 ? std::ldexp(m, -9) : std::ldexp(1 + m / 8.0, e - 7));
    }
    for (int code = 0; code < 0x7f; ++code) {
        const double value = values[static_cast<std::size_t>(code)];
        CHECK(E4M3::decode<double>(code) == value);
        CHECK(E4M3::decode<float>(code | 0x80) == -static_cast<float>(value));
        CHECK(E4M3::encode(value) == code);
        CHECK(E4M3::encode(-value) == (code == 0 ? 0 : code | 0x80));
        if (code == 0x7e) break;
        const float middle = static_cast<float>((value + values[static_cast<std::size_t>(code) + 1]) / 2);
        CHECK(E4M3::encode(middle) == code + code % 2);
        CHECK(E4M3::encode(std::nextafter(middle, 0.0f)) == code);
        CHECK(E4M3::encode(std::nextafter(middle, 999.0f)) == code + 1);
    }
    CHECK(E4M3::decode<float>(0x7e) == 448.0f);
    CHECK(E4M3::encode(1e30f) == 0x7e);
    CHECK(E4M3::encode(-1e300) == 0xfe);
    CHECK((E4M3::encode(std::nanf("")) & 0x7f) == 0x7e);
}

TEST_CASE("MXFP4 scales are the specification's", "[grids]") {
    const MXFP4Grid grid;
    CHECK(grid.params(-1.0f, 4.0f).scale == 1.0f);   // 2^(2 - 2)
    CHECK(grid.params(-7.99f, 4.0f).scale == 1.0f);  // clipped to 6
    CHECK(grid.params(-8.0f, 4.0f).scale == 2.0f);
    CHECK(grid.params(0.0f, 0.0f).scale == 1.0f);
    CHECK(grid.params(0.0f, 1e-40f).scale == 0x1p-126f);
    CHECK(grid.params(0.0f, std::numeric_limits<float>::max()).scale == 0x1p125f);

    const MXFP4Grid covering = with_clip(grid);
    CHECK(covering.params(0.0f, 6.0f).scale == 1.0f);
    CHECK(covering.params(0.0f, 6.001f).scale == 2.0f);
    CHECK(covering.params(0.0f, 4.0f).scale == 1.0f);
    CHECK(covering.params(0.0f, 3.001f).scale == 1.0f);
    CHECK(covering.params(0.0f, 3.0f).scale == 0.5f);
}

TEST_CASE("NVFP4 tensor scales are powers of two with room to grow", "[grids]") {
    for (const double absmax : {1e-12, 0.01, 1.0, 1344.0, 1345.0, 1e6}) {
        const auto grid = NVFP4Grid::for_absmax(absmax);
        CAPTURE(absmax, grid.tensor_scale);
        grid.validate();
        CHECK(absmax / 6 / grid.tensor_scale <= 224);
        CHECK(absmax / 6 / grid.tensor_scale > 112);
    }
    CHECK(NVFP4Grid::for_absmax(0).tensor_scale == 1.0f);
    CHECK(NVFP4Grid::for_absmax(1344).tensor_scale == 1.0f);
    const float w[] = {1, -1345, 3, 2};
    CHECK(NVFP4Grid::for_weights(MatrixView<const float>(w, 2, 2)).tensor_scale == 2.0f);
    CHECK_THROWS_AS((NVFP4Grid{.tensor_scale = 0.3f}.validate()), std::invalid_argument);
    CHECK_THROWS_AS(NVFP4Grid::for_absmax(std::nan("")), std::invalid_argument);
}

TEST_CASE("ggml's conventions", "[grids]") {
    SECTION("the side of the extreme has one more level") {
        const Q4_0Grid grid;
        const auto negative = grid.params(-8.0f, 3.0f);
        CHECK(grid.decode(0, negative) == -8.0f);
        CHECK(grid.decode(15, negative) == 7.0f);
        const auto positive = grid.params(-3.0f, 8.0f);
        CHECK(grid.decode(0, positive) == 8.0f);
        CHECK(grid.decode(15, positive) == -7.0f);
        CHECK(grid.encode(8.0f, positive) == 0);
        CHECK(Q5_0Grid{}.params(-3.0f, 32.0f).scale == 2.0f);
    }
    SECTION("minimum and scale") {
        const Q4_1Grid grid;
        const auto p = grid.params(-5.0f, 10.0f);
        CHECK(p.scale == 1.0f);
        CHECK(p.zero == -5.0f);
        CHECK(grid.decode(15, p) == 10.0f);
        CHECK(Q5_1Grid{}.params(-1.0f, 30.0f).scale == 1.0f);
    }
    SECTION("scales and minima are float16") {
        const auto q4_1 = Q4_1Grid{}.params(-0.1234567, 0.7654321);
        CHECK(q4_1.zero == double(float(float16(-0.1234567f))));
        CHECK(q4_1.scale == double(float(float16(float((0.1234567 + 0.7654321) / 15)))));
        CHECK(Q8_0Grid{}.params(-1.0f, 0.5f).scale == float(float16(1.0f / 127)));
    }
    SECTION("Q8_0 has no -128") {
        const Q8_0Grid grid;
        CHECK(grid.encode(-200.0f, grid.params(-127.0f, 1.0f)) == 0);
        CHECK(grid.decode(0, grid.params(-127.0f, 1.0f)) == -127.0f);
    }
}

TEST_CASE("a codebook covers both sides", "[grids]") {
    const CodebookGrid<4> grid{.values = {-1, 0, 0.5f, 2}};
    CHECK(grid.params(-3.0f, 2.0f).scale == 3.0f);
    CHECK(grid.params(-0.5f, 2.0f).scale == 1.0f);
    CHECK(grid.params(0.0f, 0.0f).scale == 1.0f);
    CHECK(grid.encode(0.25f, {1.0f, 0.0f}) == 1);  // the smaller of two
    CHECK(CodebookGrid<2>{.values = {0, 1}}.params(-3.0f, 0.0f).scale == 1.0f);
    CHECK(message_of([] {
              CodebookGrid<3>{.values = {0, 1, 1}}.validate();
          }) == "residua: CodebookGrid: values[2] is 1, expected more than the value before it");
    CHECK(message_of([] {
              CodebookGrid<2>{.values = {0, INFINITY}}.validate();
          }) == "residua: CodebookGrid: values[1] is inf, expected a finite number");
    CHECK_THROWS_AS(CodebookGrid<2>{}.validate(), std::invalid_argument);
}

TEST_CASE("NF4 is a codebook whose values are given", "[grids]") {
    const NF4Grid grid{.clip = {.enabled = true}, .scale_type = ScaleType::Float16};
    grid.validate();
    CHECK(grid.params(-3.0f, 2.0f).scale == 3.0f);
    const CodebookGrid<16> given{.values = grid.values, .clip = grid.clip, .scale_type = ScaleType::Float16};
    const GridParams<float> p = given.params(-0.3f, 0.7f);
    CHECK(p.scale == grid.params(-0.3f, 0.7f).scale);
    for (int code = 0; code < 16; ++code) {
        CHECK(grid.encode(given.decode(code, p), p) == code);
        CHECK(grid.decode(code, p) == given.decode(code, p));
    }
}
