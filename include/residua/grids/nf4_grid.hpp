#pragma once

#include "residua/grids/codebook_grid.hpp"

namespace residua {

/// NF4 (QLoRA, arXiv 2305.14314, appendix E): 16 quantiles of the normal distribution in [-1, 1],
/// w ~ absmax values[code]. bitsandbytes stores groups of 64 columns with absmax as a float.
struct NF4Grid {
    ClipSearch clip = {};
    ScaleType scale_type = ScaleType::Float32;

    // a member and not a constant: device code can only index what it is passed
    float values[16] = {-1.0f,
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

    void validate() const { clip.validate(); }

    RESIDUA_HOST_DEVICE constexpr int levels() const { return 16; }

    template <Real T>
    RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        return {round_scale(detail::covering_scale(-1.0f, 1.0f, low, high), scale_type), T(0)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, scale_type);
    }

    template <Real T>
    RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return detail::nearest_of(values, x / p.scale);
    }

    template <Real T>
    RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * T(values[code]);
    }
};

static_assert(Grid<NF4Grid, float> && Grid<NF4Grid, double>);

}  // namespace residua
