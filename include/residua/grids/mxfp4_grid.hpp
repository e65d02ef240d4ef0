#pragma once

#include "residua/core/minifloat.hpp"
#include "residua/grids/grid.hpp"

namespace residua {

/// MXFP4 (OCP Microscaling Formats v1.0): E2M1 elements, one power of two a group, w ~ scale element(code).
/// The format's groups have 32 columns.
///
/// Without a clip search the scale is the specification's (6.3), 2^(floor(log2 absmax) - 2), which clips
/// magnitudes above 6 scale: up to a quarter of the largest weight. With one, candidates start at the
/// smallest power of two that covers the range, and the search decides.
struct MXFP4Grid {
    ClipSearch clip = {};

    static constexpr Index group_size = 32;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return E2M1::codes; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        const T absmax = detail::absmax_of(low, high);
        // absmax = 2^e m, 1 <= m < 2; covering it takes one more power of two where m > 3/2
        const int round_up = clip.enabled ? 0x3fffff : 0;
        const std::int32_t bits = std::bit_cast<std::int32_t>(static_cast<float>(absmax));
        const T code = T(((bits + round_up) >> 23) - 2);
        const int biased = static_cast<int>(detail::clamp(code, T(E8M0::min_code), T(E8M0::max_code)));
        return {absmax > T(0) ? T(E8M0::decode(biased)) : T(1), T(0)};
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return E2M1::encode(x / p.scale);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * E2M1::decode<T>(code);
    }
};

static_assert(Grid<MXFP4Grid, float> && Grid<MXFP4Grid, double>);

}  // namespace residua
