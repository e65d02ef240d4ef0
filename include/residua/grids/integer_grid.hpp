#pragma once

#include "residua/grids/grid.hpp"

namespace residua {

/// Where the grid lies around zero, for b bits.
enum class Symmetry {
    None,        ///< scale = (max+ - min-) / (2^b - 1), zero = round(-min- / scale)
    Restricted,  ///< scale = absmax / (2^(b-1) - 1), zero = 2^(b-1): QuaRot, GPTAQ, ResComp
    FullRange,   ///< scale = 2 absmax / (2^b - 1), zero = 2^(b-1): the GPTQ format. absmax lies half a step
                 ///< from two codes, and rounding decides
};

/// Uniform grid of 2^bits points, w ~ scale (code - zero), with unsigned codes and an integral zero.
///
/// A group of zeros gets scale 1 and the middle code as its zero, hence decodes to zeros.
struct IntegerGrid {
    int bits = 4;
    Symmetry symmetry = Symmetry::None;
    ClipSearch clip = {};
    ScaleType scale_type = ScaleType::Float32;

    void validate() const {
        require(bits >= 2 && bits <= 8, "IntegerGrid: bits is", bits, "2 to 8");
        clip.validate();
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 1 << bits; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool two_ended() const { return symmetry == Symmetry::None; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        const T middle = T(1 << (bits - 1));
        const T last = T(levels() - 1);
        if (low == 0 && high == 0) return {T(1), middle};
        if (symmetry == Symmetry::None) {
            // halves first: high - low may overflow
            const T scale = round_scale(T(2) * (high / T(2) / last - low / T(2) / last), scale_type);
            return {scale, detail::clamp(detail::round_to_even(-low / scale), T(0), last)};
        }
        const T absmax = detail::absmax_of(low, high);
        const T steps = symmetry == Symmetry::Restricted ? middle - 1 : last / 2;
        return {round_scale(absmax / steps, scale_type), middle};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return round_scale(scale, scale_type);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        const T step = detail::round_small(detail::divide(x, p.scale));
        return detail::to_code(detail::clamp(step, -p.zero, T(levels() - 1) - p.zero) + p.zero);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * (detail::from_code<T>(code) - p.zero);
    }
};

static_assert(Grid<IntegerGrid, float> && Grid<IntegerGrid, double>);

}  // namespace residua
