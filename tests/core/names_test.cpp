// Whoever brings all names of residua and of the standard library into one scope can use both.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "residua/residua.hpp"

namespace both {

using namespace residua;
using namespace std;

/// A grid of one's own that calls std functions without their namespace.
struct TernaryGrid {
    ClipSearch clip = {};

    void validate() const {
        require(clip.steps < 1000, "TernaryGrid: clip.steps is", clip.steps, "below 1000");
    }
    int levels() const { return 3; }

    template <Real T>
    GridParams<T> params(T low, T high) const {
        const T scale = round_scale(max(-low, high), ScaleType::Float16);
        return {low == high ? T(1) : scale, T(0)};
    }
    template <Real T>
    int encode(T x, GridParams<T> p) const {
        return isfinite(x) ? static_cast<int>(clamp(round(x / p.scale), T(-1), T(1))) + 1 : 1;
    }
    template <Real T>
    T decode(int code, GridParams<T> p) const {
        return p.scale * T(code - 1);
    }
};
static_assert(Grid<TernaryGrid, float> && !FixedGroupGrid<TernaryGrid>);

TEST_CASE("Names of residua and of std do not clash", "[core][grids]") {
    constexpr Index in = 40, out = 3, tokens = 100;
    vector<float> w(in * out), x(in * tokens);
    for (size_t i = 0; i < w.size(); ++i) w[i] = sin(float(i));
    for (size_t i = 0; i < x.size(); ++i) x[i] = cos(float(i * i));

    EigenBackend cpu;
    GPTQSolver<float, EigenBackend> solver(cpu, in, SolverOptions{.group_size = 16});
    solver.accumulate(MatrixView(x.data(), tokens, in));
    const auto q = solver.quantize(MatrixView(w.data(), out, in), TernaryGrid{});
    REQUIRE(q.report.status == Status::Success);
    CHECK(to_string(q.report.status) == "success");
    CHECK(to_string(version.major) == "0");
    const auto rounded = round_weights<float>(cpu, read_only(MatrixView(w.data(), out, in)), TernaryGrid{});
    const Matrix<float> values = rounded.dequantize(cpu);
    CHECK(objective(solver.moments(), read_only(MatrixView(w.data(), out, in)), q).symmetric > 0);

    // words of the standard library that a numerical one is tempted to use
    CHECK(clamp(5, 0, 3) == 3);
    CHECK(pow(2.0, 3.0) == 8.0);
    CHECK(exp2(3.0) == 8.0);
    CHECK(nearbyint(2.5) == 2.0);
    CHECK(div(7, 2).quot == 3);
    CHECK(divides<int>{}(6, 3) == 2);
    CHECK(multiplies<int>{}(6, 3) == 18);
    CHECK(fmod(7.0, 4.0) == 3.0);
    CHECK(copysign(1.0, -0.0) == -1.0);
    CHECK(signbit(-1.0));
    CHECK(midpoint(1, 3) == 2);
    CHECK(gcd(4, 6) == 2);
    CHECK(has_single_bit(4u));
    CHECK(bit_ceil(3u) == 4u);
    CHECK(accumulate(w.begin(), w.end(), 0.0f) < float(w.size()));
    CHECK(transform_reduce(w.begin(), w.end(), w.begin(), 0.0f) > 0.0f);
    CHECK(count(x.begin(), x.end(), 2.0f) == 0);
    CHECK(size(w) == w.size());
    CHECK(data(w) == w.data());
    CHECK(span<const float>(values.data(), size_t(values.size())).size() == w.size());
    array<float, 2> small = {2, 1};
    sort(small.begin(), small.end());
    rotate(small.begin(), small.begin() + 1, small.end());
    fill(small.begin(), small.end(), 0.0f);
    copy(w.begin(), w.begin() + 2, small.begin());
    swap(small[0], small[1]);
    CHECK(small[1] == w[0]);
    CHECK(E2M1::encode(6.0f) == 7);
    CHECK(float(float16(1.0f)) == 1.0f);
    CHECK(NF4Grid{}.levels() == 16);
}

}  // namespace both
