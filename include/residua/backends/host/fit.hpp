#pragma once

#include <algorithm>

#include "residua/backends/host/lanes.hpp"
#include "residua/grids/grid.hpp"

namespace residua::detail::lanes {

/// Grid parameters of one group for each lane; column(i), i < count, points to the L values of a column.
template <Index L, Real T, Grid<T> G, class Column>
void fit(const G& grid, Index count, Column column, T* scale, T* zero) {
    T low[L];
    T high[L];
    for (Index l = 0; l < L; ++l) low[l] = high[l] = T(0);
    for (Index i = 0; i < count; ++i) {
        const T* x = column(i);
        for (Index l = 0; l < L; ++l) low[l] = x[l] < low[l] ? x[l] : low[l];
        for (Index l = 0; l < L; ++l) high[l] = x[l] > high[l] ? x[l] : high[l];
    }

    const ClipSearch clip = grid.clip;
    if (!clip.enabled) {
        for (Index l = 0; l < L; ++l) {
            const GridParams<T> p = grid.params(low[l], high[l]);
            scale[l] = p.scale;
            zero[l] = p.zero;
        }
        return;
    }

    constexpr Index check_every = 16;
    const T norm = static_cast<T>(clip.norm);
    T least[L];
    T candidate_scale[L];
    T candidate_zero[L];
    T error[L];
    for (int step = 0; step < clip.candidates(); ++step) {
        const T factor = static_cast<T>(clip.factor(step));
        for (Index l = 0; l < L; ++l) {
            const GridParams<T> p = grid.params(factor * low[l], factor * high[l]);
            candidate_scale[l] = p.scale;
            candidate_zero[l] = p.zero;
            error[l] = T(0);
        }
        bool possible = true;
        for (Index i = 0; i < count && possible;) {
            for (const Index stop = std::min(count, i + check_every); i < stop; ++i) {
                const T* x = column(i);
                for (Index l = 0; l < L; ++l) {
                    const GridParams<T> p = {candidate_scale[l], candidate_zero[l]};
                    const T deviation = x[l] - grid.decode(grid.encode(x[l], p), p);
                    error[l] += detail::power(deviation < T(0) ? -deviation : deviation, norm);
                }
            }
            // a candidate that is already worse in every lane cannot win any more
            if (step > 0) {
                int better = 0;
                for (Index l = 0; l < L; ++l) better |= error[l] < least[l];
                possible = better != 0;
            }
        }
        for (Index l = 0; l < L; ++l) {
            const bool wins = step == 0 || error[l] < least[l];
            least[l] = wins ? error[l] : least[l];
            scale[l] = wins ? candidate_scale[l] : scale[l];
            zero[l] = wins ? candidate_zero[l] : zero[l];
        }
    }
}

}  // namespace residua::detail::lanes
