#pragma once

#include <concepts>

#include "residua/core/error.hpp"
#include "residua/core/math.hpp"
#include "residua/core/types.hpp"
#include "residua/grids/scale_search.hpp"

namespace residua {

/// What a grid stores per group of one output row. The meaning of `zero` is the grid's own: a code for
/// integers, an offset for grids with a minimum, unused for symmetric codebooks.
template <Real T>
struct GridParams {
    T scale;
    T zero;
};

/// The type that scales are stored in; a fit rounds to it, so that codes are exact for the stored scale.
enum class ScaleType { Float32, Float16, BFloat16 };

/// `value` > 0 rounded to `type`, to float first, then to shorter types; kept within the positive finite
/// range of each.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T round_scale(T value, ScaleType type) {
    constexpr float float_min = 0x1.0p-126f;
    constexpr float float_max = 0x1.fffffep+127f;
    const float scale = static_cast<float>(detail::clamp(value, T(float_min), T(float_max)));
    switch (type) {
        case ScaleType::Float16:
            return T(float(float16(detail::clamp(scale, float16::min_positive, float16::max))));
        case ScaleType::BFloat16:
            return T(float(bfloat16(detail::clamp(scale, bfloat16::min_positive, bfloat16::max))));
        case ScaleType::Float32:
            break;
    }
    return T(scale);
}

namespace detail {

/// What every grid has, see Grid.
template <class G, class T>
concept AnyGrid = Real<T> && std::is_trivially_copyable_v<G> &&
    requires(const G grid, T x, int code, GridParams<T> params) {
    { grid.levels() } -> std::same_as<int>;
    { grid.encode(x, params) } -> std::same_as<int>;
    { grid.decode(code, params) } -> std::same_as<T>;
    { grid.clip } -> std::convertible_to<ClipSearch>;
    grid.validate();
};

/// What is fitted to the range of a group alone, see Grid.
template <class G, class T>
concept RangeGrid = AnyGrid<G, T> && requires(const G grid, T x) {
    { grid.params(x, x) } -> std::same_as<GridParams<T>>;
};

}  // namespace detail

/// How a code is found for what lies between two of them.
enum class Rounding { Nearest, Down, Up };

/// A grid whose parameters have two levels: what a file stores of a group is relative to numbers that a family
/// of neighbouring groups shares, so that a family is fitted as one. In place of requirements 2, 5 and 7 to 10 of a
/// Grid:
///
///  11. grid.family() <= G::largest_family is how many groups of G::group_size <= 64 columns share.
///  12. decode(code, {s, z}) = s decode(code, {1, 0}) + z, for z <= 0 where grid.has_minimum(), else z = 0.
///      Scales are of either sign or 0, with which every code is as good.
///  13. grid.guess(i, low, high), i < grid.guesses(), low <= 0 <= high, are parameters whose
///      codes are worth trying in a group with weights in [low, high]. The fit takes the parameters with the least
///      weighted sum of squares for those codes, and keeps the best of all guesses.
///  14. grid.settle(params, weights, count) makes the parameters of `count` <= family() groups those that a
///      file stores; weights[j] is the sum of the weights of group j. It returns the shared numbers {d, e}: a group
///      has {d s, e m}, s and m its integer codes.
///  15. grid.shared(params, count) finds numbers that parameters share which a file stores.
///  16. grid.codes(params, shared, rounding) are {s, m}: s rounded as asked, m to nearest, within their ranges. In
///      families of one group they are 1.
///  17. grid.stored_shared(shared) are the nearest shared numbers that a file stores.
///  18. grid.clip is a ClipSearch: if by loss, every group that is fitted when its first column is reached has its
///      codes searched then. Beyond that its search, norm, steps and shrink are not read, for a fit is one.
template <class G, class T>
concept TwoLevelGrid = detail::AnyGrid<G, T> &&
    requires(const G grid, T x, int i, GridParams<T>* params, const T* weights) {
    { G::largest_family } -> std::convertible_to<int>;
    { grid.family() } -> std::same_as<int>;
    { grid.has_minimum() } -> std::same_as<bool>;
    { grid.guesses() } -> std::same_as<int>;
    { grid.guess(i, x, x) } -> std::same_as<GridParams<T>>;
    { grid.settle(params, weights, i) } -> std::same_as<GridParams<T>>;
    { grid.shared(params, i) } -> std::same_as<GridParams<T>>;
    { grid.codes(*params, *params, Rounding::Down) } -> std::same_as<GridParams<T>>;
    { grid.stored_shared(*params) } -> std::same_as<GridParams<T>>;
};

/// A finite set of values, at most 256 of them, that a group's weights are rounded to.
///
/// For a type G to be a Grid<T>, with `g` a G, `p` a GridParams<T>, finite `x`:
///   1. g.levels() is the number of codes; every code is below it.
///   2. g.params(low, high), low <= 0 <= high, gives the parameters that cover [low, high]; scale > 0 and
///      both are exactly what a file stores. low = high = 0 is valid.
///   3. g.encode(x, p) is the code, as an int, of the grid point nearest to x. It is total (NaN included)
///      and, for speed, free of branches.
///   4. g.decode(code, p) is the value of a code, and g.encode(g.decode(code, p), p) decodes to the same
///      value.
///   5. g.clip is the ClipSearch of the fit; g.validate() throws std::invalid_argument for unusable settings.
///   6. G is trivially copyable; encode, decode and params run on host and device.
///   7. Optional, for a grid that only makes sense with groups of N columns:
///          static constexpr Index group_size = N;
///      It is then the default of a solve, and other sizes are refused, see resolve_group_size().
///   8. Optional, for a grid whose parameters depend on both ends of the range, not on the farther one alone:
///          bool two_ended() const;
///      Where it is true, the scale search by loss moves the ends apart, see ClipSearch.
///
/// A TwoLevelGrid is fitted in another way than by 2 and 5.
template <class G, class T>
concept Grid = detail::RangeGrid<G, T> || TwoLevelGrid<G, T>;

/// A grid whose scales a refinement may refit while codes and zeros stay. Beyond a Grid:
///   9. decode(code, {scale, zero}) = scale * slope + offset, where slope and offset depend on code and zero.
///  10. g.stored_scale(x), x > 0, is a scale > 0 near x that a file stores exactly, valid with any zero.
template <class G, class T>
concept RefittableGrid = Grid<G, T> && requires(const G grid, T x) {
    { grid.stored_scale(x) } -> std::same_as<T>;
};

namespace detail {

/// The largest magnitude in [low, high], low <= 0 <= high.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr T absmax_of(T low, T high) {
    return high > -low ? high : -low;
}

}  // namespace detail

}  // namespace residua
