#pragma once

#include "residua/backends/cuda/fit.cuh"
#include "residua/backends/refine_block.hpp"
#include "residua/backends/refit.hpp"

/// The refit of a group that is wider than a block, and sums of products by output row: a thread block takes
/// 32 output rows, one per lane, and its warps share the columns.
namespace residua::detail::cuda {

/// sum over all warps of the values of a lane.
template <class T, int Warps>
__device__ T sum_of_warps(T value, T (&scratch)[Warps][lanes], int warp, int lane) {
    __syncthreads();
    scratch[warp][lane] = value;
    __syncthreads();
    T sum = T(0);
    for (int w = 0; w < Warps; ++w) sum += scratch[w][lane];
    return sum;
}

template <class T, class G>
__global__ void __launch_bounds__(lanes* warps)
    refit_kernel(const __grid_constant__ G grid, const __grid_constant__ RefineGroup<T> g) {
    __shared__ T scratch[warps][lanes];
    const int lane = threadIdx.x % lanes;
    const int warp = threadIdx.x / lanes;
    const Index row = Index(blockIdx.x) * lanes + lane;
    const bool open = row < g.error.cols && g.tally(Tally::Finished, row) == 0.0;
    T along = T(0);
    T curvature = T(0);
    for (Index k = warp; k < g.error.rows && open; k += warps) {
        const T slope = g.slopes(k, row);
        const T later = g.later(k, row);
        const T own = g.own(k, row);
        detail::add_to_refit(slope, g.outside(k, row) + g.fresh(k, row), later, own, g.error(k, row), along,
                             curvature);
    }
    const T scale = open ? g.scales(0, row) : T(1);  // before a warp writes it
    along = sum_of_warps(along, scratch, warp, lane);
    curvature = sum_of_warps(curvature, scratch, warp, lane);
    if (!open) return;
    T gain = T(0);
    const T next = detail::refitted_scale(grid, scale, along, curvature, gain);
    const T step = next - scale;
    for (Index k = warp; k < g.error.rows; k += warps) {
        g.error(k, row) -= step * g.slopes(k, row);
        g.outside(k, row) -= step * (g.later(k, row) + g.own(k, row));
    }
    if (warp != 0) return;
    g.scales(0, row) = next;
    g.tally(Tally::Lowered, row) += double(gain);
}

template <class T, class G>
void refit(cudaStream_t stream, const G& grid, const RefineGroup<T>& group) {
    const unsigned blocks = static_cast<unsigned>((group.error.cols + lanes - 1) / lanes);
    refit_kernel<T, G><<<blocks, lanes * warps, 0, stream>>>(grid, group);
    check_launch("refit_kernel");
}

inline constexpr int dot_warps = 32;  // as many loads in flight as fit

template <class T>
__global__ void __launch_bounds__(lanes* dot_warps)
    row_dots_kernel(MatrixView<const T> a, MatrixView<const T> c, MatrixView<double> sums) {
    __shared__ double scratch[dot_warps][lanes];
    const int lane = threadIdx.x % lanes;
    const int warp = threadIdx.x / lanes;
    const Index row = Index(blockIdx.x) * lanes + lane;
    double sum = 0;
#pragma unroll 8
    for (Index k = warp; k < a.rows && row < a.cols; k += dot_warps)
        sum += double(a(k, row)) * double(c(k, row));
    sum = sum_of_warps(sum, scratch, warp, lane);
    if (warp == 0 && row < a.cols) sums(0, row) += sum;
}

template <class T>
void add_row_dots(cudaStream_t stream, MatrixView<const T> a, MatrixView<const T> c,
                  MatrixView<double> sums) {
    const unsigned blocks = static_cast<unsigned>((a.cols + lanes - 1) / lanes);
    row_dots_kernel<T><<<blocks, lanes * dot_warps, 0, stream>>>(a, c, sums);
    check_launch("row_dots_kernel");
}

}  // namespace residua::detail::cuda
