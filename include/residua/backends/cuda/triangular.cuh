#pragma once

#include <algorithm>

#include "residua/backends/cuda/error.hpp"
#include "residua/backends/cuda/vector.cuh"
#include "residua/core/view.hpp"

/// Inverses of the diagonal blocks of triangular matrices, with which triangular solves become products.
namespace residua::detail::cuda {

/// Rows of a block.
inline constexpr int inverted_rows = 128;

inline constexpr int inverting_threads = 256;

/// One block in shared memory, and what is left of a product of two quarters of it.
struct InverseMemory {
    static constexpr int stride = inverted_rows + 4;
    static constexpr int half = inverted_rows / 2;
    static constexpr int half_stride = half + 4;

    float a[inverted_rows][stride];
    float product[half][half_stride];
};

/// Inverse_BB = R_BB^-1 for the blocks B of 128 rows on the diagonal of an upper triangular R (n, n); the blocks of
/// a row lie one behind the other in `inverse` (n, width), from its left again where they reach its end. By halves:
/// with X = R^-1,
///
///     X_12 = -X_11 R_12 X_22
///
/// A thread block for each block.
template <class T>
__global__ void __launch_bounds__(inverting_threads)
    invert_blocks_kernel(MatrixView<const T> r, MatrixView<T> inverse) {
    constexpr int threads = inverting_threads;
    constexpr int corner = 32;
    extern __shared__ __align__(16) unsigned char bytes[];
    InverseMemory& memory = *reinterpret_cast<InverseMemory*>(bytes);
    auto& a = memory.a;
    const Index first = Index(blockIdx.x) * inverted_rows;
    const int size = static_cast<int>(min(Index(inverted_rows), r.rows - first));
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll 16
    for (int e = t; e < inverted_rows * inverted_rows; e += threads) {
        const int i = e / inverted_rows;
        const int j = e % inverted_rows;
        const bool inside = i <= j && j < size;
        a[i][j] = inside ? r(first + i, first + j) : float(i == j);
    }
    __syncthreads();
    if (const int o = t / 32 * corner; o < inverted_rows) {  // a warp for each corner, a lane for each column
        const int lane = t % 32;
        const float inverse_diagonal = 1.0f / a[o + lane][o + lane];
        float x[corner];
#pragma unroll
        for (int i = corner - 1; i >= 0; --i) {
            float sum = float(i == lane);
#pragma unroll
            for (int k = corner - 1; k > i; --k) sum -= a[o + i][o + k] * x[k];  // the newest last
            x[i] = sum * __shfl_sync(0xffffffffu, inverse_diagonal, i);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < corner; ++i) a[o + i][o + lane] = x[i];
    }
    __syncthreads();

    /// C = factor A B, (h, h) each, by threads / pairs threads with numbers from 0
    const auto multiply = [](int h, int number, float factor, const float* left, int left_stride,
                             const float* right, int right_stride, float* c, int c_stride) {
        const int across = h / 4;
        const int j = number % across * 4;
        const int i0 = number / across;
        for (int i = i0; i < h; i += 32) {
            Vector<float, 4> sums[2] = {};
#pragma unroll 8
            for (int k = 0; k < h; ++k) {
                const auto b = *reinterpret_cast<const Vector<float, 4>*>(right + k * right_stride + j);
                const float upper = left[i * left_stride + k];
                const float lower = left[(i + 16) * left_stride + k];
#pragma unroll
                for (int v = 0; v < 4; ++v) {
                    sums[0].v[v] += upper * b.v[v];
                    sums[1].v[v] += lower * b.v[v];
                }
            }
#pragma unroll
            for (int s = 0; s < 2; ++s) {
#pragma unroll
                for (int v = 0; v < 4; ++v) sums[s].v[v] *= factor;
                *reinterpret_cast<Vector<float, 4>*>(c + (i + 16 * s) * c_stride + j) = sums[s];
            }
        }
    };
    for (int h = corner; h < inverted_rows; h *= 2) {
        const int pairs = inverted_rows / (2 * h);
        const int number = t % (threads / pairs);
        const int pair = t / (threads / pairs);
        const int o = 2 * h * pair;
        float* const product = &memory.product[0][0] + pair * h * InverseMemory::half_stride;
        multiply(h, number, 1.0f, &a[o][o + h], InverseMemory::stride, &a[o + h][o + h],
                 InverseMemory::stride, product, InverseMemory::half_stride);
        __syncthreads();
        multiply(h, number, -1.0f, &a[o][o], InverseMemory::stride, product, InverseMemory::half_stride,
                 &a[o][o + h], InverseMemory::stride);
        __syncthreads();
    }
#pragma unroll 16
    for (int e = t; e < inverted_rows * size; e += threads) {
        const int i = e / inverted_rows;
        const int j = e % inverted_rows;
        if (j < size) inverse(first + i, first % inverse.cols + j) = a[i][j];
    }
}

/// inverse: (n, a multiple of inverted_rows).
inline void invert_small_blocks(cudaStream_t stream, MatrixView<const float> r, MatrixView<float> inverse) {
    check(cudaFuncSetAttribute(invert_blocks_kernel<float>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(sizeof(InverseMemory))),
          "cudaFuncSetAttribute");
    const auto blocks = static_cast<unsigned>((r.rows + inverted_rows - 1) / inverted_rows);
    invert_blocks_kernel<float><<<blocks, inverting_threads, sizeof(InverseMemory), stream>>>(r, inverse);
    check_launch("invert_blocks_kernel");
}

/// Copies what lies strictly below the diagonal of the diagonal blocks of A, of `block` rows, or puts it back.
template <class T>
struct BelowDiagonal {
    MatrixView<T> a;
    MatrixView<T> kept;  // (n, block)
    Index block;
    bool restore;
    __device__ void operator()(Index i, Index j) const {
        const Index column = i / block * block + j;
        if (column >= i) return;
        if (restore) {
            a(i, column) = kept(i, j);
        } else {
            kept(i, j) = a(i, column);
        }
    }
};

}  // namespace residua::detail::cuda
