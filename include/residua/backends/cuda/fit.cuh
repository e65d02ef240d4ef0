#pragma once

#include "residua/backends/cuda/error.hpp"
#include "residua/core/view.hpp"
#include "residua/grids/grid.hpp"

/// Grid fits of groups of columns: a thread block takes 32 output rows, one per lane, and its warps share
/// the columns (for the range) and the candidates (for the clip search).
namespace residua::detail::cuda {

inline constexpr int lanes = 32;
inline constexpr int warps = 8;

template <class T>
struct FitScratch {
    T low[warps][lanes];
    T high[warps][lanes];
    int step[warps][lanes];
};

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

/// Parameters of one group for the row of this lane; column(i), i < count, is the row's i-th weight. All
/// threads of the block take part and get the result. The scratch may be used again after a barrier.
template <class T, class G, class Column>
__device__ GridParams<T> fit_group(const G& grid, int count, Column column, FitScratch<T>& scratch, int warp,
                                   int lane) {
    T low = T(0);
    T high = T(0);
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
    if (!grid.clip.enabled) return grid.params(low, high);

    T least = std::numeric_limits<T>::infinity();
    int best = -1;
    search_clip(grid, count, column, low, high, warp, least, best);
    __syncthreads();
    scratch.low[warp][lane] = least;
    scratch.step[warp][lane] = best;
    __syncthreads();
    least = scratch.low[0][lane];
    best = scratch.step[0][lane];
    for (int v = 1; v < warps; ++v) {
        const T error = scratch.low[v][lane];
        const int step = scratch.step[v][lane];
        if (step >= 0 && (error < least || (error == least && step < best))) {
            least = error;
            best = step;
        }
    }
    const T factor = static_cast<T>(grid.clip.factor(best));
    return grid.params(factor * low, factor * high);
}

/// Fits the grid of group blockIdx.y: columns members[offsets[g]] ... members[offsets[g + 1] - 1] of C.
template <class T, class G>
__global__ void __launch_bounds__(lanes* warps)
    fit_kernel(G grid, MatrixView<const T> c, const std::int32_t* members, const std::int32_t* offsets,
               MatrixView<T> scales, MatrixView<T> zeros) {
    __shared__ FitScratch<T> scratch;
    const int lane = threadIdx.x % lanes;
    const int warp = threadIdx.x / lanes;
    const Index row = Index(blockIdx.x) * lanes + lane;
    const Index clamped = row < c.cols ? row : c.cols - 1;
    const std::int32_t* const group = members + offsets[blockIdx.y];
    const int count = offsets[blockIdx.y + 1] - offsets[blockIdx.y];
    const auto column = [&](int i) { return c(group[i], clamped); };
    const GridParams<T> params = fit_group<T>(grid, count, column, scratch, warp, lane);
    if (warp == 0 && row < c.cols) {
        scales(blockIdx.y, row) = params.scale;
        zeros(blockIdx.y, row) = params.zero;
    }
}

template <class T, class G>
void fit(cudaStream_t stream, const G& grid, MatrixView<const T> c, const std::int32_t* members,
         const std::int32_t* offsets, Index groups, MatrixView<T> scales, MatrixView<T> zeros) {
    const dim3 blocks(static_cast<unsigned>((c.cols + lanes - 1) / lanes), static_cast<unsigned>(groups));
    fit_kernel<T, G><<<blocks, lanes * warps, 0, stream>>>(grid, c, members, offsets, scales, zeros);
    check_launch("fit_kernel");
}

}  // namespace residua::detail::cuda
