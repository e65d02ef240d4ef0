#pragma once

#include "residua/backends/host/lanes.hpp"
#include "residua/backends/refine_block.hpp"
#include "residua/backends/refit.hpp"

namespace residua::detail::lanes {

/// The refit of a RefineGroup for output rows [first, first + active) of a tile; next(row, along, curvature, gain) is
/// the scale that an output row gets.
template <Real T, class Next>
void refit_rows(const RefineGroup<T>& g, Index first, Index active, Next next) {
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
        const T changed = open ? next(first + l, along[l], curvature[l], gain) : scale;
        step[l] = changed - scale;
        scale = changed;
        g.tally(Tally::Lowered, first + l) += double(gain);
    }
    for (Index k = 0; k < g.error.rows; ++k) {
        for (Index l = 0; l < active; ++l) {
            g.error(k, first + l) -= step[l] * g.slopes(k, first + l);
            g.outside(k, first + l) -= step[l] * (g.later(k, first + l) + g.own(k, first + l));
        }
    }
}

template <Real T, RefittableGrid<T> G>
void refit(const G& grid, const RefineGroup<T>& g, Index first, Index active) {
    refit_rows(g, first, active, [&](Index r, T along, T curvature, T& gain) {
        return detail::refitted_scale(grid, g.scales(0, r), along, curvature, gain);
    });
}

/// Of a number that a family shares, with the groups' parameters following it.
template <Real T, TwoLevelGrid<T> G>
void refit_shared(const G& grid, const RefineFamily<T>& family, Number number, const RefineGroup<T>& g,
                  Index first, Index active) {
    refit_rows(g, first, active, [&](Index r, T along, T curvature, T& gain) {
        const GridParams<T> shared = {family.shared(0, r), family.shared(1, r)};
        const T value = detail::refitted_shared(grid, shared, number, along, curvature, gain);
        if (value != number_of(shared, number))
            detail::rescale_family(grid, family, r, shared, number, value);
        return value;
    });
}

/// What a family shares, and its slopes.
template <Real T, TwoLevelGrid<T> G>
void share(const G& grid, const RefineFamily<T>& family, Index first, Index active) {
    for (Index r = first; r < first + active; ++r) {
        const GridParams<T> shared = detail::shared_by_family(grid, family, r);
        family.shared(0, r) = shared.scale;
        family.shared(1, r) = shared.zero;
    }
    for (Index k = 0; k < family.codes.rows; ++k) {
        const Index j = family.group_of[static_cast<std::size_t>(k)];
        for (Index r = first; r < first + active; ++r) {
            const GridParams<T> params = {family.scales(j, r), family.zeros(j, r)};
            const GridParams<T> codes = grid.codes(
                params, GridParams<T>{family.shared(0, r), family.shared(1, r)}, Rounding::Nearest);
            family.scale_slopes(k, r) =
                codes.scale * grid.decode(int(family.codes(k, r)), GridParams<T>{T(1), T(0)});
            if (grid.has_minimum()) family.zero_slopes(k, r) = codes.zero;
        }
    }
}

}  // namespace residua::detail::lanes
