#pragma once

#include <algorithm>

#include "residua/backends/cuda/error.hpp"
#include "residua/core/view.hpp"

/// Transposition through shared memory, with rows gathered or scattered on the way: reads and writes both
/// run along rows.
namespace residua::detail::cuda {

inline constexpr int tile_side = 64;
inline constexpr int tile_threads_y = 8;

/// C_{to_j i} = A_{from_i j} for A (rows, cols) and i < rows; null maps are the identity. *flag = 1 where a
/// value is not finite, if `flag` is not null.
template <class In, class Out>
__global__ void transpose_kernel(MatrixView<const In> a, const std::int32_t* from, const std::int32_t* to,
                                 MatrixView<Out> c, Code* flag) {
    __shared__ Out tile[tile_side][tile_side + 4 / sizeof(Out) + (sizeof(Out) > 4)];
    const Index i0 = Index(blockIdx.y) * tile_side;
    const Index j0 = Index(blockIdx.x) * tile_side;
    bool finite = true;
    for (int y = threadIdx.y; y < tile_side; y += tile_threads_y) {
        const Index i = i0 + y;
        if (i >= a.rows) break;
        const In* row = a.row(from ? from[i] : i);
        for (int x = threadIdx.x; x < tile_side; x += 32) {
            if (j0 + x >= a.cols) break;
            const Out value = static_cast<Out>(row[j0 + x]);
            if constexpr (!std::is_same_v<Out, Code>) finite = finite && detail::is_finite(value);
            tile[y][x] = value;
        }
    }
    if (flag && !finite) *flag = 1;
    __syncthreads();
    for (int x = threadIdx.y; x < tile_side; x += tile_threads_y) {
        const Index j = j0 + x;
        if (j >= a.cols) break;
        Out* row = c.row(to ? to[j] : j);
        for (int y = threadIdx.x; y < tile_side; y += 32) {
            if (i0 + y < a.rows) row[i0 + y] = tile[y][x];
        }
    }
}

/// Which triangles a mirror writes: the lower from the upper, the upper from the lower, or both at once.
enum class Mirror { ToLower, ToUpper, Swap };

/// Tile by tile, a thread block for a tile on or above the diagonal and its image below.
template <class T>
__global__ void mirror_kernel(MatrixView<T> a, Mirror mirror) {
    __shared__ T upper[32][33];
    __shared__ T lower[32][33];
    if (blockIdx.y > blockIdx.x) return;
    const Index i0 = Index(blockIdx.y) * 32;
    const Index j0 = Index(blockIdx.x) * 32;
    const int x = threadIdx.x;
    for (int y = threadIdx.y; y < 32; y += tile_threads_y) {
        if (i0 + y < a.rows && j0 + x < a.rows) upper[y][x] = a(i0 + y, j0 + x);
        if (mirror != Mirror::ToLower && j0 + y < a.rows && i0 + x < a.rows) lower[y][x] = a(j0 + y, i0 + x);
    }
    __syncthreads();
    for (int y = threadIdx.y; y < 32; y += tile_threads_y) {
        if (mirror != Mirror::ToUpper && j0 + y < a.rows && i0 + x < j0 + y) a(j0 + y, i0 + x) = upper[x][y];
        if (mirror != Mirror::ToLower && j0 + x < a.rows && i0 + y < j0 + x) a(i0 + y, j0 + x) = lower[x][y];
    }
}

/// Swaps A_ij and A_{n-1-j n-1-i} in the upper triangle: reflection in the other diagonal. A thread block
/// swaps a tile that starts on or left of that diagonal with its image.
template <class T>
__global__ void reflect_kernel(MatrixView<T> a) {
    __shared__ T left[32][33];
    __shared__ T right[32][33];
    const Index n = a.rows;
    const Index i0 = Index(blockIdx.y) * 32;
    const Index j0 = Index(blockIdx.x) * 32;
    if (j0 + 31 < i0 || i0 + j0 > n - 1) return;
    const auto mine = [&](Index i, Index j) { return i < n && j < n && i <= j && i + j < n - 1; };
    for (int y = threadIdx.y; y < 32; y += tile_threads_y) {
        const int x = threadIdx.x;
        if (mine(i0 + y, j0 + x)) left[y][x] = a(i0 + y, j0 + x);
        if (mine(i0 + x, j0 + y)) right[y][x] = a(n - 1 - j0 - y, n - 1 - i0 - x);
    }
    __syncthreads();
    for (int y = threadIdx.y; y < 32; y += tile_threads_y) {
        const int x = threadIdx.x;
        if (mine(i0 + y, j0 + x)) a(i0 + y, j0 + x) = right[x][y];
        if (mine(i0 + x, j0 + y)) a(n - 1 - j0 - y, n - 1 - i0 - x) = left[x][y];
    }
}

/// C_ij = A_{order_j order_i}
template <class T>
__global__ void permute_transposed_kernel(MatrixView<const T> a, const std::int32_t* order, MatrixView<T> c) {
    __shared__ T tile[32][33];
    const Index i0 = Index(blockIdx.y) * 32;
    const Index j0 = Index(blockIdx.x) * 32;
    for (int y = threadIdx.y; y < 32; y += tile_threads_y) {
        if (j0 + y < a.rows && i0 + threadIdx.x < a.rows)
            tile[y][threadIdx.x] = a(order[j0 + y], order[i0 + threadIdx.x]);
    }
    __syncthreads();
    for (int x = threadIdx.y; x < 32; x += tile_threads_y) {
        if (i0 + x < a.rows && j0 + threadIdx.x < a.rows) c(i0 + x, j0 + threadIdx.x) = tile[threadIdx.x][x];
    }
}

inline dim3 tiles(Index rows, Index cols, int side) {
    return dim3(static_cast<unsigned>((cols + side - 1) / side),
                static_cast<unsigned>((rows + side - 1) / side));
}

/// `count` rows of A are read: A's own, or those that `from` names.
template <class In, class Out>
void transpose(cudaStream_t stream, MatrixView<const In> a, const std::int32_t* from, const std::int32_t* to,
               MatrixView<Out> c, Code* flag = nullptr) {
    // the grid's second dimension is limited: long matrices in pieces
    constexpr Index piece = Index(tile_side) * 32768;
    for (Index i = 0; i < a.rows && a.cols > 0; i += piece) {
        const Index count = std::min(piece, a.rows - i);
        const MatrixView<const In> source = {from ? a.data : a.row(i), count, a.cols, a.stride};
        transpose_kernel<In, Out><<<tiles(count, a.cols, tile_side), dim3(32, tile_threads_y), 0, stream>>>(
            source, from ? from + i : nullptr, to, c.block(0, i, c.rows, count), flag);
        check_launch("transpose_kernel");
    }
}

template <class T>
void mirror(cudaStream_t stream, MatrixView<T> a, Mirror mirror) {
    if (a.rows == 0) return;
    mirror_kernel<<<tiles(a.rows, a.rows, 32), dim3(32, tile_threads_y), 0, stream>>>(a, mirror);
    check_launch("mirror_kernel");
}

template <class T>
void reflect(cudaStream_t stream, MatrixView<T> a) {
    if (a.rows == 0) return;
    reflect_kernel<<<tiles(a.rows, a.rows, 32), dim3(32, tile_threads_y), 0, stream>>>(a);
    check_launch("reflect_kernel");
}

template <class T>
void permute_transposed(cudaStream_t stream, MatrixView<const T> a, const std::int32_t* order,
                        MatrixView<T> c) {
    if (a.rows == 0) return;
    permute_transposed_kernel<<<tiles(a.rows, a.rows, 32), dim3(32, tile_threads_y), 0, stream>>>(a, order,
                                                                                                  c);
    check_launch("permute_transposed_kernel");
}

}  // namespace residua::detail::cuda
