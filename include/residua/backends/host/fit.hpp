#pragma once

#include <algorithm>
#include <functional>
#include <limits>

#include "residua/backends/host/lanes.hpp"
#include "residua/backends/least_squares.hpp"
#include "residua/grids/group_size.hpp"

/// Grid fits of one group for each lane; column(i), i < count, points to the L values of a column.
namespace residua::detail::lanes {

/// The range [low, high] of each lane, 0 included.
template <Index L, Real T, class Column>
void range_of(Index count, Column column, T* low, T* high) {
    for (Index l = 0; l < L; ++l) low[l] = high[l] = T(0);
    for (Index i = 0; i < count; ++i) {
        const T* x = column(i);
        for (Index l = 0; l < L; ++l) low[l] = x[l] < low[l] ? x[l] : low[l];
        for (Index l = 0; l < L; ++l) high[l] = x[l] > high[l] ? x[l] : high[l];
    }
}

/// Parameters that cover the range or, with a search, the part of it with the least sum |error|^norm.
template <Index L, Real T, Grid<T> G, class Column>
void fit_by_norm(const G& grid, Index count, Column column, const T* low, const T* high, T* scale, T* zero) {
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

/// The candidates of a search by loss for each lane, in the order of their errors sum_i weights[i] (x_i - q(x_i))^2.
/// Of candidates with the same error, as those with the same parameters have it, the list has one.
template <Index L, Real T, int Capacity>
class Shortlist {
  public:
    Shortlist() { std::fill_n(last_, L, T(-1)); }

    /// The next candidate; the first one is what a group has without a search.
    template <class G, class Column>
    void add(const G& grid, Index count, Column column, const T* weights, const T* scale, const T* zero) {
        std::copy_n(scale, L, scales_ + count_ * L);
        std::copy_n(zero, L, zeros_ + count_ * L);
        alignas(64) T error[L];
        for (Index l = 0; l < L; ++l) error[l] = T(0);
        for (Index i = 0; i < count; ++i) {
            const T* x = column(i);
            const T weight = weights[i];
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> p = {scale[l], zero[l]};
                const T deviation = x[l] - grid.decode(grid.encode(x[l], p), p);
                error[l] += weight * (deviation * deviation);
            }
        }
        std::copy_n(error, L, errors_ + count_ * L);
        ++count_;
    }

    /// The first candidate, which stays on the list.
    void first(T* scale, T* zero) const {
        std::copy_n(scales_, L, scale);
        std::copy_n(zeros_, L, zero);
    }

    void drop_first() {
        for (int c = count_ - 1; c >= 0; --c) {
            T* error = errors_ + c * L;
            for (Index l = 0; l < L; ++l) error[l] = error[l] == errors_[l] ? none : error[l];
        }
    }

    /// The next candidate of each lane; a lane without one more keeps what it has.
    void take_next(T* scale, T* zero) {
        alignas(64) T least[L];
        alignas(64) int first[L];
        for (Index l = 0; l < L; ++l) least[l] = none;
        for (Index l = 0; l < L; ++l) first[l] = -1;
        for (int c = 0; c < count_; ++c) {
            const T* error = errors_ + c * L;
            for (Index l = 0; l < L; ++l) {
                const bool precedes = (error[l] > last_[l]) & (error[l] < least[l]);
                first[l] = precedes ? c : first[l];
                least[l] = precedes ? error[l] : least[l];
            }
        }
        std::copy_n(least, L, last_);
        for (Index l = 0; l < L; ++l) {
            if (first[l] < 0) continue;
            scale[l] = scales_[first[l] * L + l];
            zero[l] = zeros_[first[l] * L + l];
        }
    }

  private:
    static constexpr T none = std::numeric_limits<T>::infinity();

    int count_ = 0;
    alignas(64) T errors_[Capacity * L];
    alignas(64) T scales_[Capacity * L];
    alignas(64) T zeros_[Capacity * L];
    alignas(64) T last_[L];  // error of the candidate taken last
};

/// Fills the list with a group's LossCandidates.
template <Index L, Real T, Grid<T> G, class Column>
void add_ranges(const G& grid, Index count, Column column, const T* weights,
                Shortlist<L, T, ClipSearch::most_candidates>& shortlist) {
    alignas(64) T low[L];
    alignas(64) T high[L];
    alignas(64) T by_norm_scale[L];
    alignas(64) T by_norm_zero[L];
    alignas(64) T scale[L];
    alignas(64) T zero[L];
    range_of<L>(count, column, low, high);
    fit_by_norm<L>(grid, count, column, low, high, by_norm_scale, by_norm_zero);
    const LossCandidates<G> candidates(grid);
    for (int c = 0; c < candidates.count(); ++c) {
        for (Index l = 0; l < L; ++l) {
            const GridParams<T> by_norm = {by_norm_scale[l], by_norm_zero[l]};
            const GridParams<T> p = candidates.params(c, low[l], high[l], by_norm);
            scale[l] = p.scale;
            zero[l] = p.zero;
        }
        shortlist.add(grid, count, column, weights, scale, zero);
    }
}

/// Parameters of a group of which nothing but its columns is known and, for a search by loss, their `weights`.
template <Index L, Real T, Grid<T> G, class Column>
void fit(const G& grid, Index count, Column column, const T* weights, T* scale, T* zero) {
    if (ClipSearch(grid.clip).by_loss()) {
        Shortlist<L, T, ClipSearch::most_candidates> shortlist;
        add_ranges<L>(grid, count, column, weights, shortlist);
        shortlist.first(scale, zero);
        shortlist.take_next(scale, zero);
        return;
    }
    alignas(64) T low[L];
    alignas(64) T high[L];
    range_of<L>(count, column, low, high);
    fit_by_norm<L>(grid, count, column, low, high, scale, zero);
}

/// Of so many survivors of a shortlist the one with the least loss; loss(scale, zero, sums) computes for each lane what
/// a candidate loses.
template <Index L, Real T, int Capacity, class Loss>
void choose_by_loss(Shortlist<L, T, Capacity>& shortlist, int survivors, Loss loss, T* scale, T* zero) {
    alignas(64) T least[L];
    alignas(64) T sums[L];
    alignas(64) T candidate_scale[L];
    alignas(64) T candidate_zero[L];
    shortlist.first(scale, zero);
    shortlist.first(candidate_scale, candidate_zero);
    shortlist.drop_first();
    loss(candidate_scale, candidate_zero, least);
    for (int i = 1; i < survivors; ++i) {
        shortlist.take_next(candidate_scale, candidate_zero);
        loss(candidate_scale, candidate_zero, sums);
        for (Index l = 0; l < L; ++l) {
            const bool wins = sums[l] < least[l];
            least[l] = wins ? sums[l] : least[l];
            scale[l] = wins ? candidate_scale[l] : scale[l];
            zero[l] = wins ? candidate_zero[l] : zero[l];
        }
    }
}

/// The fit of a group of a Grid whose search is by loss.
template <Index L, Real T, Grid<T> G, class Column, class Loss>
void fit_by_loss(const G& grid, Index count, Column column, const T* weights, Loss loss, T* scale, T* zero) {
    Shortlist<L, T, ClipSearch::most_candidates> shortlist;
    add_ranges<L>(grid, count, column, weights, shortlist);
    choose_by_loss(shortlist, ClipSearch(grid.clip).survivors, loss, scale, zero);
}

/// body(scale, zero, error) for so many guesses of a TwoLevelGrid, number(i) of the grid each: the parameters that are
/// best for its codes, before the family is settled, and the weighted sum of squares that they leave. Returns the sum of
/// the weights.
template <Index L, Real T, TwoLevelGrid<T> G, class Column, class Number, class Body>
T for_guesses(const G& grid, Index count, Column column, const T* weights, int guesses, Number number,
              Body body) {
    T low[L];
    T high[L];
    range_of<L>(count, column, low, high);
    T sum = T(0);
    for (Index i = 0; i < count; ++i) sum += weights[i];
    T wx[L] = {};
    T wxx[L] = {};
    for (Index i = 0; i < count; ++i) {
        const T* x = column(i);
        for (Index l = 0; l < L; ++l) wx[l] += weights[i] * x[l];
        for (Index l = 0; l < L; ++l) wxx[l] += weights[i] * x[l] * x[l];
    }
    alignas(64) T scale[L];
    alignas(64) T zero[L];
    alignas(64) T error[L];
    for (int guess = 0; guess < guesses; ++guess) {
        T first_scale[L];
        T first_zero[L];
        for (Index l = 0; l < L; ++l) {
            const GridParams<T> p = grid.guess(number(guess), low[l], high[l]);
            first_scale[l] = p.scale;
            first_zero[l] = p.zero;
        }
        T wl[L] = {};
        T wll[L] = {};
        T wlx[L] = {};
        for (Index i = 0; i < count; ++i) {
            const T* x = column(i);
            for (Index l = 0; l < L; ++l) {
                const int code = grid.encode(x[l], GridParams<T>{first_scale[l], first_zero[l]});
                const T level = grid.decode(code, GridParams<T>{T(1), T(0)});
                const T weighted = weights[i] * level;
                wl[l] += weighted;
                wll[l] += weighted * level;
                wlx[l] += weighted * x[l];
            }
        }
        for (Index l = 0; l < L; ++l) {
            const LevelSums<T> sums = {sum, wx[l], wxx[l], wl[l], wll[l], wlx[l]};
            const GridParams<T> p =
                least_squares(grid, GridParams<T>{first_scale[l], first_zero[l]}, sums, error[l]);
            scale[l] = p.scale;
            zero[l] = p.zero;
        }
        body(scale, zero, error);
    }
    return sum;
}

/// The fit of a group of a TwoLevelGrid with `weights` of the columns, before the family is settled. Returns the sum of
/// the weights.
template <Index L, Real T, TwoLevelGrid<T> G, class Column>
T fit_one_of_family(const G& grid, Index count, Column column, const T* weights, T* scale, T* zero) {
    T least[L];
    bool is_first = true;
    const auto keep_best = [&](const T* guess_scale, const T* guess_zero, const T* error) {
        for (Index l = 0; l < L; ++l) {
            const bool wins = is_first || error[l] < least[l];
            least[l] = wins ? error[l] : least[l];
            scale[l] = wins ? guess_scale[l] : scale[l];
            zero[l] = wins ? guess_zero[l] : zero[l];
        }
        is_first = false;
    };
    return for_guesses<L>(grid, count, column, weights, grid.guesses(), std::identity(), keep_best);
}

/// Searches the codes of a group of a TwoLevelGrid that was fitted, given the numbers that its family shares: of what
/// `scale` and `zero` are and what each searched guess comes to, rounded to two codes, the survivor with the least loss.
template <Index L, Real T, TwoLevelGrid<T> G, class Column, class Loss>
void search_codes(const G& grid, Index count, Column column, const T* weights, const T* shared_scale,
                  const T* shared_zero, Loss loss, T* scale, T* zero) {
    Shortlist<L, T, searched_codes> shortlist;
    shortlist.add(grid, count, column, weights, scale, zero);
    alignas(64) T candidate_scale[L];
    alignas(64) T candidate_zero[L];
    const auto add_both = [&](const T* fitted_scale, const T* fitted_zero, const T*) {
        for (int i = 0; i < 2; ++i) {
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> p = searched_params(grid, GridParams<T>{fitted_scale[l], fitted_zero[l]},
                                                        GridParams<T>{shared_scale[l], shared_zero[l]}, i);
                candidate_scale[l] = p.scale;
                candidate_zero[l] = p.zero;
            }
            shortlist.add(grid, count, column, weights, candidate_scale, candidate_zero);
        }
    };
    const auto number = [&](int i) { return searched_guess(grid, i); };
    for_guesses<L>(grid, count, column, weights, searched_guesses, number, add_both);
    choose_by_loss(shortlist, ClipSearch(grid.clip).survivors, loss, scale, zero);
}

/// The parameters of a family's groups, (count, L) each, as a file stores them; `weights` of the groups. The numbers
/// that they share: (2, L), of scales and of zeros.
template <Index L, Real T, TwoLevelGrid<T> G>
void settle(const G& grid, int count, const T* weights, T* scale, T* zero, T* shared) {
    GridParams<T> params[G::largest_family];
    for (Index l = 0; l < L; ++l) {
        for (int j = 0; j < count; ++j) params[j] = {scale[j * L + l], zero[j * L + l]};
        const GridParams<T> numbers = grid.settle(params, weights, count);
        shared[l] = numbers.scale;
        shared[L + l] = numbers.zero;
        for (int j = 0; j < count; ++j) {
            scale[j * L + l] = params[j].scale;
            zero[j * L + l] = params[j].zero;
        }
    }
}

}  // namespace residua::detail::lanes
