#pragma once

#include "residua/core/minifloat.hpp"
#include "residua/grids/grid.hpp"

namespace residua {

/// Floating point elements with one scale a group, w ~ scale element(code): scale = absmax / largest element.
///
/// \tparam Element  E2M1 or E4M3
template <class Element>
struct FloatGrid {
    ClipSearch clip = {};
    ScaleType scale_type = ScaleType::Float32;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return Element::codes; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        if (low == 0 && high == 0) return {T(1), T(0)};
        const T absmax = detail::absmax_of(low, high);
        return {round_scale(absmax / T(Element::max), scale_type), T(0)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, scale_type);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return Element::encode(x / p.scale);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * Element::template decode<T>(code);
    }
};

using FP4Grid = FloatGrid<E2M1>;
using FP8Grid = FloatGrid<E4M3>;

static_assert(Grid<FP4Grid, float> && Grid<FP4Grid, double> && Grid<FP8Grid, float> && Grid<FP8Grid, double>);

}  // namespace residua
