#pragma once

#include <limits>

#include "residua/grids/grid.hpp"

/// The parameters of a group that come nearest to its weights, given their codes: every backend sums up over the
/// group's columns what that takes, for each guess of a TwoLevelGrid, and asks for it here.
namespace residua::detail {

/// Of columns x_k with weights w_k and, for one guess, the levels l_k = decode(code_k, {1, 0}).
template <Real T>
struct LevelSums {
    T w = T(0), wx = T(0), wxx = T(0);
    T wl = T(0), wll = T(0), wlx = T(0);

    /// What does not depend on a guess.
    RESIDUA_HOST_DEVICE void add(T weight, T x) {
        w += weight;
        wx += weight * x;
        wxx += weight * x * x;
    }
    RESIDUA_HOST_DEVICE void add_level(T weight, T level, T x) {
        wl += weight * level;
        wll += weight * level * level;
        wlx += weight * level * x;
    }
};

/// {s, z} with the least sum of w_k (s l_k + z - x_k)^2, z <= 0 if there is a minimum and else z = 0, and that sum as
/// `error`. `guess` where that leaves more than one.
template <Real T, TwoLevelGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> least_squares(const G& grid, GridParams<T> guess,
                                                                     const LevelSums<T>& sums, T& error) {
    constexpr T rounding = T(64) * std::numeric_limits<T>::epsilon();  // of a determinant, relatively
    const T one = sums.wll > T(0) ? sums.wlx / sums.wll : T(0);
    GridParams<T> p = {one, T(0)};
    if (grid.has_minimum()) {
        const T determinant = sums.w * sums.wll - sums.wl * sums.wl;
        const bool unique = determinant > rounding * sums.w * sums.wll;
        const T divisor = unique ? determinant : T(1);
        const T zero = (sums.wll * sums.wx - sums.wl * sums.wlx) / divisor;
        const T scale = (sums.w * sums.wlx - sums.wx * sums.wl) / divisor;
        p = {zero > T(0) ? one : scale, zero > T(0) ? T(0) : zero};
        p.scale = unique ? p.scale : guess.scale;
        p.zero = unique ? p.zero : guess.zero;
    }
    const T squares = p.scale * p.scale * sums.wll + p.zero * p.zero * sums.w + sums.wxx;
    error = squares + T(2) * (p.scale * p.zero * sums.wl - p.scale * sums.wlx - p.zero * sums.wx);
    return p;
}

/// A search for a group's codes, given what its family shares, looks at so many of the fit's guesses, evenly spread: those
/// between mostly come to the same codes.
inline constexpr int searched_guesses = 8;

/// Guess i < searched_guesses of them.
template <class G>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr int searched_guess(const G& grid, int i) {
    return i * (grid.guesses() - 1) / (searched_guesses - 1);
}

/// Candidates of such a search: number 0 is what the group has, two come from each guess that it looks at.
inline constexpr int searched_codes = 1 + 2 * searched_guesses;

/// Candidate i < 2 of a guess, near the parameters that its codes were `fitted` with: the scale is rounded to both
/// neighbours or, where a minimum makes up for some of the difference, to the nearest code and the one below.
template <Real T, TwoLevelGrid<T> G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> searched_params(const G& grid, GridParams<T> fitted,
                                                                       GridParams<T> shared, int i) {
    if (grid.family() == 1) return grid.stored_shared(fitted);
    const Rounding first = grid.has_minimum() ? Rounding::Nearest : Rounding::Up;
    const GridParams<T> codes = grid.codes(fitted, shared, i == 0 ? first : Rounding::Down);
    return {shared.scale * codes.scale, shared.zero * codes.zero};
}

}  // namespace residua::detail
