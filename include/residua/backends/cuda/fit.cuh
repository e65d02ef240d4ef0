#pragma once

#include "residua/backends/cuda/error.hpp"
#include "residua/backends/least_squares.hpp"
#include "residua/core/view.hpp"
#include "residua/grids/group_size.hpp"

/// Grid fits of groups of columns: a thread block takes 32 output rows, one per lane, and its warps share
/// the columns (for the range) and the candidates (for the searches). column(i), i < count, is the i-th weight
/// of the row of the lane.
namespace residua::detail::cuda {

inline constexpr int lanes = 32;
inline constexpr int warps = 8;

/// Of a search by loss onto a grid of type G, at most.
template <class T, class G>
constexpr int most_candidates() {
    if constexpr (TwoLevelGrid<G, T>) return searched_codes;
    return ClipSearch::most_candidates;
}

template <class T, class G>
struct FitScratch {
    static constexpr int candidates = most_candidates<T, G>();

    T low[warps][lanes];
    T high[warps][lanes];
    int step[warps][lanes];
    T error[candidates][lanes];             // of the candidates of a search by loss
    std::int8_t ranked[candidates][lanes];  // candidates in the order of their errors
};

/// The least value of all warps for the row of this lane and the number that goes with it; the smaller one of
/// two. Negative numbers do not take part. All threads of the block take part, and get the result.
template <class T, class G>
__device__ void least_of_warps(FitScratch<T, G>& scratch, T& least, int& best, int warp, int lane) {
    __syncthreads();
    scratch.low[warp][lane] = least;
    scratch.step[warp][lane] = best;
    __syncthreads();
    least = scratch.low[0][lane];
    best = scratch.step[0][lane];
    for (int v = 1; v < warps; ++v) {
        const T value = scratch.low[v][lane];
        const int number = scratch.step[v][lane];
        if (number >= 0 && (best < 0 || value < least || (value == least && number < best))) {
            least = value;
            best = number;
        }
    }
}

/// Errors of the candidates that are one warp's share. Keeps the least and its step; the first wins ties.
template <class T, class G, class Column>
__device__ void search_clip(const G& grid, int count, Column column, T low, T high, int warp, T& least,
                            int& best) {
    constexpr int batch = 2;  // candidates that share the loads and hide each other's latency
    constexpr int check_every = 16;
    const ClipSearch clip = grid.clip;
    const T norm = static_cast<T>(clip.norm);
    for (int first = warp; first < clip.candidates(); first += batch * warps) {
        GridParams<T> params[batch];
        T error[batch];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            const T factor = static_cast<T>(clip.factor(first + b * warps));
            params[b] = grid.params(factor * low, factor * high);
            error[b] = first + b * warps < clip.candidates() ? T(0) : std::numeric_limits<T>::infinity();
        }
        for (int i = 0; i < count;) {
            for (const int stop = min(count, i + check_every); i < stop; ++i) {
                const T x = column(i);
#pragma unroll
                for (int b = 0; b < batch; ++b) {
                    const T deviation = x - grid.decode(grid.encode(x, params[b]), params[b]);
                    error[b] += detail::power(deviation < T(0) ? -deviation : deviation, norm);
                }
            }
            // candidates that are already worse in every row cannot win any more
            bool possible = best < 0;
#pragma unroll
            for (int b = 0; b < batch; ++b) possible = possible || error[b] < least;
            if (!__any_sync(0xffffffffu, possible)) break;
        }
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            if (best < 0 || error[b] < least) {
                least = error[b];
                best = first + b * warps;
            }
        }
    }
}

/// The range of one group, 0 included, for the row of this lane. All threads of the block take part and get the
/// result.
template <class T, class G, class Column>
__device__ void find_range(int count, Column column, FitScratch<T, G>& scratch, int warp, int lane, T& low,
                           T& high) {
    low = T(0);
    high = T(0);
    for (int i = warp; i < count; i += warps) {
        const T x = column(i);
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    scratch.low[warp][lane] = low;
    scratch.high[warp][lane] = high;
    __syncthreads();
    for (int v = 0; v < warps; ++v) {
        low = scratch.low[v][lane] < low ? scratch.low[v][lane] : low;
        high = scratch.high[v][lane] > high ? scratch.high[v][lane] : high;
    }
}

/// Parameters that cover the range or, with a search, the part of it with the least sum |error|^norm. All threads
/// of the block take part and get the result. The scratch may be used again after a barrier.
template <class T, class G, class Column>
__device__ GridParams<T> fit_by_norm(const G& grid, int count, Column column, T low, T high,
                                     FitScratch<T, G>& scratch, int warp, int lane) {
    if (!ClipSearch(grid.clip).enabled) return grid.params(low, high);
    T least = std::numeric_limits<T>::infinity();
    int best = -1;
    search_clip(grid, count, column, low, high, warp, least, best);
    least_of_warps(scratch, least, best, warp, lane);
    const T factor = static_cast<T>(ClipSearch(grid.clip).factor(best));
    return grid.params(factor * low, factor * high);
}

/// Puts so many candidates, whose errors are in the scratch, into scratch.ranked: number 0, which a group has without a
/// search, first, and the others behind it in the order of their errors; of those with the same error one. Places that
/// are left over hold number 0. All threads of the block take part; with barriers.
template <class T, class G>
__device__ void rank_candidates(FitScratch<T, G>& scratch, int count, int warp, int lane) {
    constexpr int batch = (FitScratch<T, G>::candidates + warps - 1) / warps;  // candidates of a warp
    T error[batch];
    bool repeats[batch];
    int place[batch];
#pragma unroll
    for (int b = 0; b < batch; ++b) {
        const int own = warp + b * warps;
        error[b] = own < count ? scratch.error[own][lane] : T(0);
        repeats[b] = own >= count;
        place[b] = 0;
    }
    for (int c = 0; c < count; ++c) {
        const T other = scratch.error[c][lane];
#pragma unroll
        for (int b = 0; b < batch; ++b)
            repeats[b] = repeats[b] || (c < warp + b * warps && other == error[b]);
    }
    __syncthreads();
#pragma unroll
    for (int b = 0; b < batch; ++b) {
        const int own = warp + b * warps;
        if (own < count) {
            scratch.ranked[own][lane] = 0;
            if (repeats[b]) scratch.error[own][lane] = std::numeric_limits<T>::infinity();
            if (own == 0) scratch.error[own][lane] = T(-1);
        }
    }
    __syncthreads();
    for (int c = 0; c < count; ++c) {
        const T other = scratch.error[c][lane];
#pragma unroll
        for (int b = 0; b < batch; ++b) place[b] += other < error[b];
    }
#pragma unroll
    for (int b = 0; b < batch; ++b) {
        const int own = warp + b * warps;
        // errors that are no numbers take no place
        if (!repeats[b] && own > 0 && error[b] < std::numeric_limits<T>::infinity())
            scratch.ranked[place[b]][lane] = static_cast<std::int8_t>(own);
    }
    __syncthreads();
}

/// The candidates of a search by loss for the row of this lane, and their errors sum_i weight(i) (x_i - q(x_i))^2.
/// All threads of the block take part in what has a barrier.
template <class T, class G>
class Shortlist {
  public:
    __device__ Shortlist(const G& grid, T low, T high, GridParams<T> by_norm, FitScratch<T, G>& scratch,
                         int warp, int lane)
        : candidates_(grid),
          grid_(grid),
          low_(low),
          high_(high),
          by_norm_(by_norm),
          scratch_(scratch),
          warp_(warp),
          lane_(lane) {}

    __device__ int count() const { return candidates_.count(); }
    __device__ GridParams<T> params(int candidate) const {
        return candidates_.params(candidate, low_, high_, by_norm_);
    }

    /// The errors of all candidates, into the scratch. Barriers before and after.
    template <class Column, class Weight>
    __device__ void screen(int columns, Column column, Weight weight) const {
        GridParams<T> p[batch];
        T error[batch];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            p[b] = params(min(warp_ + b * warps, count() - 1));
            error[b] = T(0);
        }
#pragma unroll 1
        for (int i = 0; i < columns; ++i) {
            const T x = column(i);
            const T w = weight(i);
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                const T deviation = x - grid_.decode(grid_.encode(x, p[b]), p[b]);
                error[b] += w * (deviation * deviation);
            }
        }
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            if (warp_ + b * warps < count()) scratch_.error[warp_ + b * warps][lane_] = error[b];
        }
        __syncthreads();
    }

    /// After screen(): the candidate with the least error, number 0 where errors are no numbers.
    __device__ int first() const {
        int best = 0;
        T least = scratch_.error[0][lane_];
        for (int c = 1; c < count(); ++c) {
            const T error = scratch_.error[c][lane_];
            if (error < least) {
                least = error;
                best = c;
            }
        }
        return best;
    }

  private:
    static constexpr int batch = (ClipSearch::most_candidates + warps - 1) / warps;  // candidates of a warp

    LossCandidates<G> candidates_;
    const G& grid_;
    T low_, high_;
    GridParams<T> by_norm_;
    FitScratch<T, G>& scratch_;
    int warp_, lane_;
};

/// What a family's groups are before they are settled.
template <class T, class G>
struct FamilyScratch {
    T scale[G::largest_family][lanes];
    T zero[G::largest_family][lanes];
    T weight[G::largest_family];
};

/// One group of a TwoLevelGrid for the row of this lane: column(i) and weight(i), i < count.
template <class T, class G, class Column, class Weight>
class GroupOfFamily {
  public:
    __device__ GroupOfFamily(const G& grid, int count, Column column, Weight weight)
        : grid_(grid), count_(count), column_(column), weight_(weight) {
        for (int i = 0; i < count; ++i) {
            const T x = column(i);
            low_ = x < low_ ? x : low_;
            high_ = x > high_ ? x : high_;
            known_.add(weight(i), x);
        }
    }

    __device__ T weight() const { return known_.w; }

    /// The parameters that are best for the codes of a guess, and the error that they leave.
    __device__ GridParams<T> fitted_to(int guess, T& error) const {
        const GridParams<T> first = grid_.guess(guess, low_, high_);
        LevelSums<T> sums = known_;
#pragma unroll
        for (int i = 0; i < count_; ++i) {
            const T x = column_(i);
            sums.add_level(weight_(i), grid_.decode(grid_.encode(x, first), GridParams<T>{T(1), T(0)}), x);
        }
        return least_squares(grid_, first, sums, error);
    }

    /// Of all guesses those that leave the least error.
    __device__ GridParams<T> fit() const {
        T least;
        GridParams<T> best = fitted_to(0, least);
        for (int guess = 1; guess < grid_.guesses(); ++guess) {
            T error;
            const GridParams<T> params = fitted_to(guess, error);
            if (!(error < least)) continue;
            least = error;
            best = params;
        }
        return best;
    }

    /// sum_i weight(i) (x_i - q(x_i))^2
    __device__ T error_of(GridParams<T> params) const {
        T sum = T(0);
#pragma unroll
        for (int i = 0; i < count_; ++i) {
            const T x = column_(i);
            const T deviation = x - grid_.decode(grid_.encode(x, params), params);
            sum += weight_(i) * (deviation * deviation);
        }
        return sum;
    }

  private:
    const G& grid_;
    int count_;
    Column column_;
    Weight weight_;
    T low_ = T(0);
    T high_ = T(0);
    LevelSums<T> known_;
};

/// The candidates of a search for the codes of such a group, number 0 being those that it has, and their errors. All
/// threads of the block take part in what has a barrier.
template <class T, class G, class Group>
class CodeSearch {
  public:
    __device__ CodeSearch(const G& grid, const Group& group, GridParams<T> present, GridParams<T> shared)
        : grid_(grid), group_(group), present_(present), shared_(shared) {}

    __device__ int count() const { return searched_codes; }
    __device__ GridParams<T> params(int candidate) const {
        T error;
        // every lane may ask for another one: number 0 works on a guess, too, that it does not need
        const int other = candidate > 0 ? candidate - 1 : 0;
        const GridParams<T> fitted = group_.fitted_to(searched_guess(grid_, other / 2), error);
        return candidate > 0 ? searched_params(grid_, fitted, shared_, other % 2) : present_;
    }

    /// The errors of all candidates, into the scratch. A barrier follows.
    __device__ void screen(FitScratch<T, G>& scratch, int warp, int lane) const {
        if (warp == 0) scratch.error[0][lane] = group_.error_of(present_);
        for (int pair = warp; pair < searched_guesses; pair += warps) {
            T error;
            const GridParams<T> fitted = group_.fitted_to(searched_guess(grid_, pair), error);
            for (int i = 0; i < 2; ++i)
                scratch.error[1 + 2 * pair + i][lane] =
                    group_.error_of(searched_params(grid_, fitted, shared_, i));
        }
        __syncthreads();
    }

  private:
    const G& grid_;
    const Group& group_;
    GridParams<T> present_, shared_;
};

/// Fits the grid of group blockIdx.y, or of the family of groups blockIdx.y: columns members[offsets[g]] ...
/// members[offsets[g + 1] - 1] of C, whose errors `weights` (1, columns) weigh, or 1 where there are none. Warps share
/// the columns of a group, or the groups of a family. What a family shares goes to `shared`, unless that is empty.
template <class T, class G>
__global__ void __launch_bounds__(lanes* warps)
    fit_kernel(G grid, MatrixView<const T> c, MatrixView<const T> weights, const std::int32_t* members,
               const std::int32_t* offsets, int groups, MatrixView<T> scales, MatrixView<T> zeros,
               MatrixView<T> shared) {
    const int lane = threadIdx.x % lanes;
    const int warp = threadIdx.x / lanes;
    const Index row = Index(blockIdx.x) * lanes + lane;
    const Index clamped = row < c.cols ? row : c.cols - 1;
    if constexpr (TwoLevelGrid<G, T>) {
        __shared__ FamilyScratch<T, G> scratch;
        const int first = static_cast<int>(blockIdx.y) * grid.family();
        const int count = min(grid.family(), groups - first);
        for (int j = warp; j < count; j += warps) {
            const std::int32_t* const group = members + offsets[first + j];
            const int size = offsets[first + j + 1] - offsets[first + j];
            T x[G::group_size];
            T w[G::group_size];
#pragma unroll
            for (int i = 0; i < int(G::group_size); ++i) {
                x[i] = i < size ? c(group[i], clamped) : T(0);
                w[i] = i < size ? weights.data ? weights(0, group[i]) : T(1) : T(0);
            }
            const auto column = [&](int i) { return x[i]; };
            const auto weight = [&](int i) { return w[i]; };
            const GroupOfFamily<T, G, decltype(column), decltype(weight)> one(grid, int(G::group_size),
                                                                              column, weight);
            const GridParams<T> params = one.fit();
            scratch.scale[j][lane] = params.scale;
            scratch.zero[j][lane] = params.zero;
            if (lane == 0) scratch.weight[j] = one.weight();
        }
        __syncthreads();
        if (warp != 0 || row >= c.cols) return;
        GridParams<T> family[G::largest_family];
        for (int j = 0; j < count; ++j) family[j] = {scratch.scale[j][lane], scratch.zero[j][lane]};
        const GridParams<T> numbers = grid.settle(family, scratch.weight, count);
        if (shared.data) {
            shared(2 * blockIdx.y, row) = numbers.scale;
            shared(2 * blockIdx.y + 1, row) = numbers.zero;
        }
        for (int j = 0; j < count; ++j) {
            scales(first + j, row) = family[j].scale;
            zeros(first + j, row) = family[j].zero;
        }
    } else {
        __shared__ FitScratch<T, G> scratch;
        const std::int32_t* const group = members + offsets[blockIdx.y];
        const int count = offsets[blockIdx.y + 1] - offsets[blockIdx.y];
        const auto column = [&](int i) { return c(group[i], clamped); };
        T low, high;
        find_range(count, column, scratch, warp, lane, low, high);
        GridParams<T> params = fit_by_norm(grid, count, column, low, high, scratch, warp, lane);
        if (ClipSearch(grid.clip).by_loss()) {
            const Shortlist<T, G> shortlist(grid, low, high, params, scratch, warp, lane);
            shortlist.screen(count, column,
                             [&](int i) { return weights.data ? weights(0, group[i]) : T(1); });
            params = shortlist.params(shortlist.first());
        }
        if (warp == 0 && row < c.cols) {
            scales(blockIdx.y, row) = params.scale;
            zeros(blockIdx.y, row) = params.zero;
        }
    }
}

template <class T, class G>
void fit(cudaStream_t stream, const G& grid, MatrixView<const T> c, MatrixView<const T> weights,
         const std::int32_t* members, const std::int32_t* offsets, Index groups, MatrixView<T> scales,
         MatrixView<T> zeros, MatrixView<T> shared) {
    const Index family = family_of(grid);
    const dim3 blocks(static_cast<unsigned>((c.cols + lanes - 1) / lanes),
                      static_cast<unsigned>((groups + family - 1) / family));
    fit_kernel<T, G><<<blocks, lanes * warps, 0, stream>>>(grid, c, weights, members, offsets,
                                                           static_cast<int>(groups), scales, zeros, shared);
    check_launch("fit_kernel");
}

}  // namespace residua::detail::cuda
