#pragma once

#include "residua/grids/grid.hpp"

/// The scale of a group of columns that lowers |E - d C|_H^2 most, E = W* - Q, C = dQ / dscale: every backend sums
/// up the two numbers that it takes, and asks for it, by the functions here.
namespace residua::detail {

/// d decode / d scale.
template <Real T, RefittableGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T slope_of(const G& grid, int code, T zero) {
    return grid.decode(code, GridParams<T>{T(1), zero}) - grid.decode(code, GridParams<T>{T(0), zero});
}

/// What a column adds to along = C H E' and curvature = C H C', with gradient (E H)_k and `curved` = (C H)_k over
/// the group.
template <Real T>
RESIDUA_HOST_DEVICE inline void add_to_refit(T slope, T gradient, T curved, T& along, T& curvature) {
    along += slope * gradient;
    curvature += slope * curved;
}

/// The same where sums over the group are split into those over columns of the same block, `own`, over blocks that
/// come `later`, and over earlier ones, which the symmetry of H gives: `gradient` lacks the earlier columns.
template <Real T>
RESIDUA_HOST_DEVICE inline void add_to_refit(T slope, T gradient, T later, T own, T error, T& along,
                                             T& curvature) {
    along += slope * gradient + later * error;
    curvature += slope * (T(2) * later + own);
}

/// The scale s + d that lowers |E - d C|_H^2 most, as stored; s itself if that lowers nothing.
/// gain = 2 d along - d^2 curvature.
template <Real T, RefittableGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T refitted_scale(const G& grid, T s, T along, T curvature, T& gain) {
    const T wanted = s + along / curvature;
    const bool possible = curvature > T(0) && wanted > T(0);
    const T stored = grid.stored_scale(possible ? wanted : s);
    const T d = stored - s;
    const T lowered = d * (T(2) * along - d * curvature);
    const bool better = possible && lowered > T(0);
    gain = better ? lowered : T(0);
    return better ? stored : s;
}

}  // namespace residua::detail
