#pragma once

#include <concepts>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

namespace residua {

/// What a search for a group's scale minimizes.
enum class ScaleSearch {
    Norm,  ///< sum |w - q(w)|^norm, every weight by itself
    Loss,  ///< what the solve itself loses in the group, see ClipSearch
};

/// Search for the range that is worth covering.
///
/// By norm: both ends of [min, max] are shrunk by p = 1 - shrink * i / steps, i = 0 ... steps - 1, and the p with
/// the least sum |w - q(w)|^norm is kept.
///
/// By loss: candidates are what the norm search keeps, and the ranges
///
///     p = 1 - 0.02 i,  i = 0 ... 39, both ends shrunk by p
///     p_low, p_high = 1, 0.9 ... 0.4, each end by its own, for grids whose ends move apart (two_ended())
///
/// For a group that is fitted when its first column is reached, to current weights w, each candidate goes
/// through the recurrence inside the group, and every output row keeps the one with the least
///
///     sum_k R_kk^2 (c_k - q_k)^2,   c_k = w_k + sum_{i<k} (w_i - q_i) R_ik / R_kk,   i, k in the group,
///
/// which is |(w - q) R|^2, R restricted to the group: the error that no later column can make good. That takes
/// survivors b / n of a GPTQ's m n^2 operations for groups of b columns, for a prescreen by
/// sum_k R_kk^2 (w_k - q(w_k))^2 chooses the survivors, of candidates with the same sum the first alone. The norm
/// search's choice always survives, so that no row loses more than with it.
///
/// Of a TwoLevelGrid, whose families are fitted in another way, the codes of a group are searched so, given what its
/// family shares, when the group's first column is reached: candidates are what the group has, which always survives,
/// and two from each guess of the grid, rounded to codes.
///
/// For groups that are fitted before the first column (static groups, one scale per channel) the least
/// sum_k R_kk^2 (w*_k - q(w*_k))^2 decides, and where there are no moments (round_weights) R_kk is 1.
struct ClipSearch {
    bool enabled = false;
    double norm = 2.4;
    int steps = 80;
    double shrink = 0.8;
    ScaleSearch search = ScaleSearch::Norm;
    int survivors = 8;  ///< candidates of a search by loss that go through the recurrence; 50: all

    /// Most candidates of a search by loss.
    static constexpr int most_candidates = 50;

    void validate() const {
        require(norm > 0 && norm <= 16, "ClipSearch: norm is", norm, "a number in (0, 16]");
        require(steps >= 1 && steps <= 10000, "ClipSearch: steps is", steps, "1 to 10000");
        require(shrink > 0 && shrink < 1, "ClipSearch: shrink is", shrink, "a number in (0, 1)");
        require(survivors >= 1 && survivors <= most_candidates, "ClipSearch: survivors is", survivors,
                "1 to 50");
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE double factor(int step) const { return 1.0 - shrink * step / steps; }
    /// Of the search by norm.
    [[nodiscard]] RESIDUA_HOST_DEVICE int candidates() const { return enabled ? steps : 1; }
    [[nodiscard]] RESIDUA_HOST_DEVICE bool by_loss() const { return enabled && search == ScaleSearch::Loss; }
};

namespace detail {

/// Whether both ends of a range make a difference to a grid's parameters, requirement 8 of Grid.
template <class G>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool is_two_ended(const G& grid) {
    if constexpr (requires {
                      { grid.two_ended() } -> std::same_as<bool>;
                  }) {
        return grid.two_ended();
    } else {
        return false;
    }
}

/// The candidates of a search by loss: number 0 is the choice of the search by norm, the others are ranges.
template <class G>
class LossCandidates {
  public:
    explicit RESIDUA_HOST_DEVICE LossCandidates(const G& grid)
        : grid_(grid), two_ended_(is_two_ended(grid)) {}

    [[nodiscard]] RESIDUA_HOST_DEVICE int count() const { return 1 + (two_ended_ ? ends * ends : ranges); }

    /// Parameters of candidate i of a group in [low, high], `by_norm` being number 0.
    template <class T, class Params>
    [[nodiscard]] RESIDUA_HOST_DEVICE Params params(int i, T low, T high, Params by_norm) const {
        if (i == 0) return by_norm;
        const int narrower = i - 1;
        const int at_low = two_ended_ ? 5 * (narrower / ends) : narrower;
        const int at_high = two_ended_ ? 5 * (narrower % ends) : narrower;
        return grid_.params(T(50 - at_low) / T(50) * low, T(50 - at_high) / T(50) * high);
    }

  private:
    static constexpr int ranges = 40;
    static constexpr int ends = 7;
    static_assert(1 + ends * ends == ClipSearch::most_candidates && ranges < ends * ends);

    const G& grid_;
    bool two_ended_;
};

}  // namespace detail

}  // namespace residua
