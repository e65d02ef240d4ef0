#pragma once

#include "residua/backends/host/lanes.hpp"
#include "residua/backends/refine_block.hpp"
#include "residua/backends/refit.hpp"

namespace residua::detail::lanes {

/// The refit of a RefineGroup for output rows [first, first + active) of a tile.
template <Real T, RefittableGrid<T> G>
void refit(const G& grid, const RefineGroup<T>& g, Index first, Index active) {
    constexpr Index L = width<T>;
    T along[L] = {};
    T curvature[L] = {};
    for (Index k = 0; k < g.error.rows; ++k) {
        const T* slope = g.slopes.row(k) + first;
        const T* later = g.later.row(k) + first;
        const T* own = g.own.row(k) + first;
        const T* outside = g.outside.row(k) + first;
        const T* fresh = g.fresh.row(k) + first;
        const T* error = g.error.row(k) + first;
        for (Index l = 0; l < active; ++l)
            detail::add_to_refit(slope[l], outside[l] + fresh[l], later[l], own[l], error[l], along[l],
                                 curvature[l]);
    }
    T step[L];
    for (Index l = 0; l < active; ++l) {
        T& scale = g.scales(0, first + l);
        T gain = T(0);
        const bool open = g.tally(Tally::Finished, first + l) == 0;
        const T next = open ? detail::refitted_scale(grid, scale, along[l], curvature[l], gain) : scale;
        step[l] = next - scale;
        scale = next;
        g.tally(Tally::Lowered, first + l) += double(gain);
    }
    for (Index k = 0; k < g.error.rows; ++k) {
        for (Index l = 0; l < active; ++l) {
            g.error(k, first + l) -= step[l] * g.slopes(k, first + l);
            g.outside(k, first + l) -= step[l] * (g.later(k, first + l) + g.own(k, first + l));
        }
    }
}

}  // namespace residua::detail::lanes
