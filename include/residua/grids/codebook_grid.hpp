#pragma once

#include <cmath>
#include <string>

#include "residua/grids/grid.hpp"

namespace residua {

/// N ascending values, as a member of a grid: device code can only index what it is passed.
template <int N>
struct Codebook {
    float value[N];

    RESIDUA_HOST_DEVICE constexpr float& operator[](int code) { return value[code]; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr float operator[](int code) const { return value[code]; }
    [[nodiscard]] constexpr const float* begin() const { return value; }
    [[nodiscard]] constexpr const float* end() const { return value + N; }
};

namespace detail {

/// The values of a codebook that its user gives.
template <int N>
struct ToBeGiven {
    static constexpr Codebook<N> values = {};
};

/// NF4 (QLoRA, arXiv 2305.14314, appendix E): 16 quantiles of the normal distribution in [-1, 1].
struct NormalFloat4 {
    static constexpr Codebook<16> values = {-1.0f,
                                            -0.6961928009986877f,
                                            -0.5250730514526367f,
                                            -0.39491748809814453f,
                                            -0.28444138169288635f,
                                            -0.18477343022823334f,
                                            -0.09105003625154495f,
                                            0.0f,
                                            0.07958029955625534f,
                                            0.16093020141124725f,
                                            0.24611230194568634f,
                                            0.33791524171829224f,
                                            0.44070982933044434f,
                                            0.5626170039176941f,
                                            0.7229568362236023f,
                                            1.0f};
};

/// Number of the value nearest to x, the smaller one of two; NaN gives 0. O(N) up to 16 values, as a sum of
/// comparisons that becomes vector code, else O(log N).
template <int N, Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr int nearest_of(const Codebook<N>& values, T x) {
    const auto above = [&](int i) { return x > T(0.5) * (T(values[i - 1]) + T(values[i])); };
    int index = 0;
    if constexpr (N <= 16) {
        for (int i = 1; i < N; ++i) index += above(i);
    } else {
        for (int step = 128; step > 0; step /= 2) {
            const int next = index + step < N ? index + step : N - 1;
            index = above(next > 0 ? next : 1) ? next : index;
        }
    }
    return index;
}

/// The scale with which values from `bottom` to `top` cover [low, high]; 1 where every scale does.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T covering_scale(float bottom, float top, T low, T high) {
    const T up = top > 0 ? high / T(top) : T(0);
    const T down = bottom < 0 ? low / T(bottom) : T(0);
    const T scale = up > down ? up : down;
    return scale > T(0) ? scale : T(1);
}

}  // namespace detail

/// An arbitrary codebook, w ~ scale values[code]: N ascending values, fitted so that scaled values cover the
/// group's range on both sides.
///
///     const CodebookGrid<4> ternary_and_a_half{.values = {-1, 0, 0.5, 1}};
///
/// A group of zeros gets scale 1, hence decodes to the value nearest to 0.
///
/// \tparam Default  a type whose member `values` is the codebook unless another one is given
template <int N, class Default = detail::ToBeGiven<N>>
requires(N >= 2 && N <= 256) struct CodebookGrid {
    Codebook<N> values = Default::values;
    ClipSearch clip = {};
    ScaleType scale_type = ScaleType::Float32;

    void validate() const {
        for (int i = 0; i < N; ++i) {
            const std::string what = "CodebookGrid: values[" + std::to_string(i) + "] is";
            require(std::isfinite(values[i]), what, values[i], "a finite number");
            require(i == 0 || values[i - 1] < values[i], what, values[i], "more than the value before it");
        }
        clip.validate();
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return N; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        return {round_scale(detail::covering_scale(values[0], values[N - 1], low, high), scale_type), T(0)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, scale_type);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return detail::nearest_of(values, x / p.scale);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * T(values[code]);
    }
};

/// NF4 (QLoRA, arXiv 2305.14314), w ~ absmax values[code]: quantiles of the normal distribution.
/// bitsandbytes stores groups of 64 columns with absmax as a float; groups of any size can be solved.
using NF4Grid = CodebookGrid<16, detail::NormalFloat4>;

static_assert(Grid<CodebookGrid<16>, float> && Grid<CodebookGrid<256>, double>);
static_assert(Grid<NF4Grid, float> && Grid<NF4Grid, double>);

}  // namespace residua
