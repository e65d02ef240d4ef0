#pragma once

#include "residua/grids/grid.hpp"

/// The grids of ggml's blocks (llama.cpp, GGUF files). Groups have 32 columns; scales and minima are float16.
/// All values are exact in float: a scale has 11 significant bits, a code at most 8.
namespace residua {

/// Q4_0 and Q5_0, w ~ d (code - 2^(b-1)) with d = extreme / -2^(b-1), extreme the weight of largest
/// magnitude: the signed scale gives the side of the extreme the one level that the other side lacks.
///
/// GridParams: scale = |d|, zero = the sign of d, 1 or -1.
template <int Bits>
struct GGMLSignedGrid {
    ClipSearch clip = {};

    static constexpr int bits = Bits;
    static constexpr Index group_size = 32;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 1 << Bits; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        if (low == 0 && high == 0) return {T(1), T(1)};
        const T absmax = detail::absmax_of(low, high);
        return {round_scale(absmax / half<T>(), ScaleType::Float16), high > -low ? T(-1) : T(1)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, ScaleType::Float16);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        const T step = detail::round_to_even(x / (p.scale * p.zero)) + half<T>();
        return static_cast<int>(detail::saturate(step, T(levels() - 1)));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return (p.scale * p.zero) * (T(code) - half<T>());
    }

  private:
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr T half() {
        return T(1 << (Bits - 1));
    }
};

/// Q4_1 and Q5_1, w ~ d code + m with d = (max+ - min-) / (2^b - 1) and m = min-.
///
/// GridParams: scale = d, zero = m. As for every grid here the range includes 0, which differs from ggml's
/// own fit for groups of one sign only.
template <int Bits>
struct GGMLMinimumGrid {
    ClipSearch clip = {};

    static constexpr int bits = Bits;
    static constexpr Index group_size = 32;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 1 << Bits; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool two_ended() const { return true; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        if (low == 0 && high == 0) return {T(1), T(0)};
        const float minimum = static_cast<float>(detail::clamp(low, T(-float16::max), T(0)));
        const T range = T(2) * (high / T(2) - low / T(2));
        return {round_scale(range / last<T>(), ScaleType::Float16), T(float(float16(minimum)))};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, ScaleType::Float16);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return static_cast<int>(detail::saturate(detail::round_to_even((x - p.zero) / p.scale), last<T>()));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * T(code) + p.zero;
    }

  private:
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE static constexpr T last() {
        return T((1 << Bits) - 1);
    }
};

/// Q8_0, w ~ d (code - 127) with d = absmax / 127. The block's signed byte is code - 127, and never -128,
/// which some of ggml's vector kernels cannot negate.
struct Q8_0Grid {
    ClipSearch clip = {};

    static constexpr int bits = 8;
    static constexpr Index group_size = 32;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 255; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        if (low == 0 && high == 0) return {T(1), T(0)};
        const T absmax = detail::absmax_of(low, high);
        return {round_scale(absmax / T(127), ScaleType::Float16), T(0)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, ScaleType::Float16);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return static_cast<int>(detail::saturate(detail::round_to_even(x / p.scale) + T(127), T(254)));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * T(code - 127);
    }
};

using Q4_0Grid = GGMLSignedGrid<4>;
using Q5_0Grid = GGMLSignedGrid<5>;
using Q4_1Grid = GGMLMinimumGrid<4>;
using Q5_1Grid = GGMLMinimumGrid<5>;

static_assert(Grid<Q4_0Grid, float> && Grid<Q5_0Grid, double> && Grid<Q4_1Grid, float> &&
              Grid<Q5_1Grid, double> && Grid<Q8_0Grid, float>);

}  // namespace residua
