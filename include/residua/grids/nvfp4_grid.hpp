#pragma once

#include <cmath>

#include "residua/core/minifloat.hpp"
#include "residua/core/view.hpp"
#include "residua/grids/grid.hpp"

namespace residua {

/// NVFP4: E2M1 elements, an E4M3 scale a group and one scale for the whole tensor,
/// w ~ tensor_scale scale element(code). The format's groups have 16 columns.
///
///     const auto grid = NVFP4Grid::for_weights(weights);
///     auto layer = solver.quantize(weights, grid);
///
/// tensor_scale is a power of two. Engines disagree on whether a file's tensor scale multiplies or divides,
/// and on the precision of intermediate results; with a power of two every product has at most 6 significant
/// bits, so that all of them compute the same values. It costs nothing, for E4M3 scales are relative.
struct NVFP4Grid {
    float tensor_scale = 1.0f;
    ClipSearch clip = {};

    static constexpr Index group_size = 16;

    /// For weights of at most this magnitude: the largest group scale is in (112, 224], which leaves a factor
    /// of two to weights that grow as they compensate for others.
    [[nodiscard]] static NVFP4Grid for_absmax(double absmax, ClipSearch clip = {}) {
        require(absmax >= 0 && std::isfinite(absmax), "NVFP4Grid: absmax is", absmax,
                "a finite number of at least 0");
        NVFP4Grid grid{.clip = clip};
        int exponent = 0;
        const double fraction = std::frexp(absmax / (6.0 * 224.0), &exponent);  // in [1/2, 1), or 0
        if (fraction == 0.5) --exponent;
        if (absmax > 0) grid.tensor_scale = std::ldexp(1.0f, exponent < -100 ? -100 : exponent);
        return grid;
    }

    /// For these weights, in host memory. Values that are not finite are for the solver to report.
    template <Element In>
    [[nodiscard]] static NVFP4Grid for_weights(MatrixView<const In> weights, ClipSearch clip = {}) {
        double absmax = 0;
        for (Index i = 0; i < weights.rows; ++i) {
            const In* row = weights.row(i);
            for (Index j = 0; j < weights.cols; ++j) {
                const double magnitude = std::abs(static_cast<double>(row[j]));
                if (magnitude > absmax && detail::is_finite(magnitude)) absmax = magnitude;
            }
        }
        return for_absmax(absmax, clip);
    }

    void validate() const {
        require(detail::is_power_of_two(tensor_scale), "NVFP4Grid: tensor_scale is", tensor_scale,
                "a power of two, 2^-126 to 2^126");
        clip.validate();
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return E2M1::codes; }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> params(T low, T high) const {
        const T absmax = detail::absmax_of(low, high);
        const T wanted =
            detail::clamp(absmax / (T(6) * T(tensor_scale)), T(E4M3::min_positive), T(E4M3::max));
        const T scale = E4M3::decode<T>(E4M3::encode(wanted));
        return {absmax > T(0) ? scale : T(1), T(0)};
    }

    /// The nearest scale that a file holds.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T stored_scale(T scale) const {
        return E4M3::decode<T>(E4M3::encode(detail::clamp(scale, T(E4M3::min_positive), T(E4M3::max))));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return E2M1::encode(x / (p.scale * T(tensor_scale)));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return (p.scale * T(tensor_scale)) * E2M1::decode<T>(code);
    }
};

static_assert(Grid<NVFP4Grid, float> && Grid<NVFP4Grid, double>);

}  // namespace residua
