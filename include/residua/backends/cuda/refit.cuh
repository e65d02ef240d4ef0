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

/// The scale of a group, for refit_kernel.
template <class T, class G>
struct RefitScale {
    G grid;

    __device__ GridParams<T> load(const RefineGroup<T>& g, Index row) const {
        return {g.scales(0, row), T(0)};
    }
    __device__ T present(GridParams<T> before) const { return before.scale; }
    __device__ T next(GridParams<T> before, T along, T curvature, T& gain) const {
        return detail::refitted_scale(grid, before.scale, along, curvature, gain);
    }
    __device__ void follow(Index, GridParams<T>, T) const {}
};

/// A number that a family shares, with the groups' parameters following it.
template <class T, class G>
struct RefitShared {
    G grid;
    RefineFamily<T> family;
    Number number;

    __device__ GridParams<T> load(const RefineGroup<T>&, Index row) const {
        return {family.shared(0, row), family.shared(1, row)};
    }
    __device__ T present(GridParams<T> before) const { return number_of(before, number); }
    __device__ T next(GridParams<T> before, T along, T curvature, T& gain) const {
        return detail::refitted_shared(grid, before, number, along, curvature, gain);
    }
    __device__ void follow(Index row, GridParams<T> before, T value) const {
        if (value != present(before)) detail::rescale_family(grid, family, row, before, number, value);
    }
};

template <class T, class Refit>
__global__ void __launch_bounds__(lanes* warps)
    refit_kernel(const __grid_constant__ Refit refit, const __grid_constant__ RefineGroup<T> g) {
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
    GridParams<T> before = {T(1), T(0)};
    if (open) before = refit.load(g, row);  // before a warp writes it
    along = sum_of_warps(along, scratch, warp, lane);
    curvature = sum_of_warps(curvature, scratch, warp, lane);
    if (!open) return;
    T gain = T(0);
    const T next = refit.next(before, along, curvature, gain);
    const T step = next - refit.present(before);
    for (Index k = warp; k < g.error.rows; k += warps) {
        g.error(k, row) -= step * g.slopes(k, row);
        g.outside(k, row) -= step * (g.later(k, row) + g.own(k, row));
    }
    if (warp != 0) return;
    refit.follow(row, before, next);
    g.scales(0, row) = next;
    g.tally(Tally::Lowered, row) += double(gain);
}

template <class T, class Refit>
void refit(cudaStream_t stream, const Refit& refit, const RefineGroup<T>& group) {
    const unsigned blocks = static_cast<unsigned>((group.error.cols + lanes - 1) / lanes);
    refit_kernel<T, Refit><<<blocks, lanes * warps, 0, stream>>>(refit, group);
    check_launch("refit_kernel");
}

/// What a family shares, by the first warp, and its slopes, whose columns the warps share. `group_of`: each column.
template <class T, class G>
__global__ void __launch_bounds__(lanes* warps)
    share_kernel(const __grid_constant__ G grid, const __grid_constant__ RefineFamily<T> family,
                 const std::int32_t* group_of) {
    __shared__ T scale[lanes];
    __shared__ T zero[lanes];
    const int lane = threadIdx.x % lanes;
    const int warp = threadIdx.x / lanes;
    const Index row = Index(blockIdx.x) * lanes + lane;
    const bool active = row < family.codes.cols;
    if (warp == 0 && active) {
        const GridParams<T> numbers = detail::shared_by_family(grid, family, row);
        family.shared(0, row) = scale[lane] = numbers.scale;
        family.shared(1, row) = zero[lane] = numbers.zero;
    }
    __syncthreads();
    for (Index k = warp; k < family.codes.rows && active; k += warps) {
        const Index j = group_of[k];
        const GridParams<T> params = {family.scales(j, row), family.zeros(j, row)};
        const GridParams<T> codes =
            grid.codes(params, GridParams<T>{scale[lane], zero[lane]}, Rounding::Nearest);
        family.scale_slopes(k, row) =
            codes.scale * grid.decode(int(family.codes(k, row)), GridParams<T>{T(1), T(0)});
        if (grid.has_minimum()) family.zero_slopes(k, row) = codes.zero;
    }
}

template <class T, class G>
void share(cudaStream_t stream, const G& grid, const RefineFamily<T>& family, const std::int32_t* group_of) {
    const unsigned blocks = static_cast<unsigned>((family.codes.cols + lanes - 1) / lanes);
    share_kernel<T, G><<<blocks, lanes * warps, 0, stream>>>(grid, family, group_of);
    check_launch("share_kernel");
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
