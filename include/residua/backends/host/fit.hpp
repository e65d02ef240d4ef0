#pragma once

#include <algorithm>
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
    const ClipSearch clip = clip_of(grid);
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

/// The candidates of a search by loss (LossCandidates) for each lane, in the order of their errors
/// sum_i weights[i] (x_i - q(x_i))^2. Of candidates with the same error, as those with the same parameters have
/// it, the list has one.
template <Index L, Real T>
class Shortlist {
  public:
    template <Grid<T> G, class Column>
    Shortlist(const G& grid, Index count, Column column, const T* weights) {
        alignas(64) T low[L];
        alignas(64) T high[L];
        alignas(64) T by_norm_scale[L];
        alignas(64) T by_norm_zero[L];
        range_of<L>(count, column, low, high);
        fit_by_norm<L>(grid, count, column, low, high, by_norm_scale, by_norm_zero);
        const LossCandidates<G> candidates(grid);
        count_ = candidates.count();
        for (int c = 0; c < count_; ++c) {
            T* scale = scales_ + c * L;
            T* zero = zeros_ + c * L;
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> by_norm = {by_norm_scale[l], by_norm_zero[l]};
                const GridParams<T> p = candidates.params(c, low[l], high[l], by_norm);
                scale[l] = p.scale;
                zero[l] = p.zero;
            }
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
            std::copy_n(error, L, errors_ + c * L);
        }
        std::fill_n(last_, L, T(-1));
    }

    /// The choice of the norm search, which stays on the list.
    void by_norm(T* scale, T* zero) const {
        std::copy_n(scales_, L, scale);
        std::copy_n(zeros_, L, zero);
    }

    void drop_by_norm() {
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

    int count_;
    alignas(64) T errors_[ClipSearch::most_candidates * L];
    alignas(64) T scales_[ClipSearch::most_candidates * L];
    alignas(64) T zeros_[ClipSearch::most_candidates * L];
    alignas(64) T last_[L];  // error of the candidate taken last
};

/// Parameters of a group of which nothing but its columns is known and, for a search by loss, their `weights`.
template <Index L, Real T, Grid<T> G, class Column>
void fit(const G& grid, Index count, Column column, const T* weights, T* scale, T* zero) {
    if (clip_of(grid).by_loss()) {
        Shortlist<L, T> shortlist(grid, count, column, weights);
        shortlist.by_norm(scale, zero);
        shortlist.take_next(scale, zero);
        return;
    }
    alignas(64) T low[L];
    alignas(64) T high[L];
    range_of<L>(count, column, low, high);
    fit_by_norm<L>(grid, count, column, low, high, scale, zero);
}

/// The same, where loss(scale, zero, sums) computes for each lane what a candidate loses: the one with the least
/// loss among the survivors of a search by loss.
template <Index L, Real T, Grid<T> G, class Column, class Loss>
void fit_by_loss(const G& grid, Index count, Column column, const T* weights, Loss loss, T* scale, T* zero) {
    alignas(64) T least[L];
    alignas(64) T sums[L];
    alignas(64) T candidate_scale[L];
    alignas(64) T candidate_zero[L];
    Shortlist<L, T> shortlist(grid, count, column, weights);
    shortlist.by_norm(scale, zero);
    shortlist.by_norm(candidate_scale, candidate_zero);
    shortlist.drop_by_norm();
    loss(candidate_scale, candidate_zero, least);
    for (int i = 1; i < clip_of(grid).survivors; ++i) {
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

/// The same for a group of a TwoLevelGrid, with `weights` of the columns, before the family is settled. Returns the
/// sum of the weights.
template <Index L, Real T, TwoLevelGrid<T> G, class Column>
T fit_one_of_family(const G& grid, Index count, Column column, const T* weights, T* scale, T* zero) {
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
    T least[L];
    for (int guess = 0; guess < grid.guesses(); ++guess) {
        T first_scale[L];
        T first_zero[L];
        for (Index l = 0; l < L; ++l) {
            const GridParams<T> p = grid.guess(guess, low[l], high[l]);
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
            T error;
            const GridParams<T> p =
                least_squares(grid, GridParams<T>{first_scale[l], first_zero[l]}, sums, error);
            const bool wins = guess == 0 || error < least[l];
            least[l] = wins ? error : least[l];
            scale[l] = wins ? p.scale : scale[l];
            zero[l] = wins ? p.zero : zero[l];
        }
    }
    return sum;
}

/// The parameters of a family's groups, (count, L) each, as a file stores them; `weights` of the groups.
template <Index L, Real T, TwoLevelGrid<T> G>
void settle(const G& grid, int count, const T* weights, T* scale, T* zero) {
    GridParams<T> params[G::largest_family];
    for (Index l = 0; l < L; ++l) {
        for (int j = 0; j < count; ++j) params[j] = {scale[j * L + l], zero[j * L + l]};
        grid.settle(params, weights, count);
        for (int j = 0; j < count; ++j) {
            scale[j * L + l] = params[j].scale;
            zero[j * L + l] = params[j].zero;
        }
    }
}

}  // namespace residua::detail::lanes
