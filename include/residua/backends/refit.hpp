#pragma once

#include "residua/backends/refine_block.hpp"
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

/// What of `stored` - `present` lowers |E - d C|_H^2, all or nothing: the number that remains.
/// gain = 2 d along - d^2 curvature.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T better_number(T present, T stored, T along, T curvature, T& gain) {
    const T d = stored - present;
    const T lowered = d * (T(2) * along - d * curvature);
    const bool better = curvature > T(0) && lowered > T(0);
    gain = better ? lowered : T(0);
    return better ? stored : present;
}

/// The scale s + d that lowers |E - d C|_H^2 most, as stored; s itself if that lowers nothing.
template <Real T, RefittableGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T refitted_scale(const G& grid, T s, T along, T curvature, T& gain) {
    const T wanted = s + along / curvature;
    const bool possible = curvature > T(0) && wanted > T(0);
    return better_number(s, grid.stored_scale(possible ? wanted : s), along, curvature, gain);
}

template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T number_of(GridParams<T> params, Number number) {
    return number == Number::Scale ? params.scale : params.zero;
}
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr GridParams<T> with_number(GridParams<T> params, Number number,
                                                                      T value) {
    return number == Number::Scale ? GridParams<T>{value, params.zero} : GridParams<T>{params.scale, value};
}

/// The same for one number of a group of a TwoLevelGrid, as stored with what its family shares. The slope of the
/// scale is decode(code, {1, 0}), that of the zero 1.
template <Real T, TwoLevelGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> refitted_params(const G& grid, GridParams<T> p,
                                                                       GridParams<T> shared, Number number,
                                                                       T along, T curvature, T& gain) {
    const T present = number_of(p, number);
    const T wanted = present + (curvature > T(0) ? along / curvature : T(0));
    const GridParams<T> codes = grid.codes(with_number(p, number, wanted), shared, Rounding::Nearest);
    const T stored = number_of(shared, number) * number_of(codes, number);
    return with_number(p, number, better_number(present, stored, along, curvature, gain));
}

/// And for one of the numbers that a family shares.
template <Real T, TwoLevelGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T refitted_shared(const G& grid, GridParams<T> shared, Number number,
                                                           T along, T curvature, T& gain) {
    const T present = number_of(shared, number);
    const T wanted = present + (curvature > T(0) ? along / curvature : T(0));
    const T stored = number_of(grid.stored_shared(with_number(shared, number, wanted)), number);
    return better_number(present, stored, along, curvature, gain);
}

/// Output row r of a family: the parameters of its groups, when one of the numbers that they share becomes `value`.
template <Real T, TwoLevelGrid<T> G>
RESIDUA_HOST_DEVICE inline void rescale_family(const G& grid, const RefineFamily<T>& f, Index r,
                                               GridParams<T> shared, Number number, T value) {
    for (Index j = 0; j < f.scales.rows; ++j) {
        const GridParams<T> params = {f.scales(j, r), f.zeros(j, r)};
        const T code = number_of(grid.codes(params, shared, Rounding::Nearest), number);
        (number == Number::Scale ? f.scales : f.zeros)(j, r) = value * code;
    }
}

/// What output row r of a family shares.
template <Real T, TwoLevelGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> shared_by_family(const G& grid,
                                                                        const RefineFamily<T>& f, Index r) {
    GridParams<T> params[G::largest_family];
    for (Index j = 0; j < f.scales.rows; ++j) params[j] = {f.scales(j, r), f.zeros(j, r)};
    return grid.shared(params, static_cast<int>(f.scales.rows));
}

}  // namespace residua::detail
