#pragma once

#include <algorithm>

#include "residua/backends/cuda/error.hpp"
#include "residua/core/view.hpp"
#include "residua/grids/grid.hpp"

/// Operations on single elements of matrices, and the sum of their products.
///
/// One kernel walks a matrix with neighbouring threads on neighbouring columns; what it does there is a
/// function object.
namespace residua::detail::cuda {

template <class Body>
__global__ void visit_kernel(Index rows, Index cols, Body body) {
    const Index j = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (j >= cols) return;
    for (Index i = blockIdx.y; i < rows; i += gridDim.y) body(i, j);
}

template <class T>
struct Add {
    MatrixView<const T> a;
    MatrixView<T> c;
    T sign;
    __device__ void operator()(Index i, Index j) const { c(i, j) += sign * a(i, j); }
};

template <class T>
struct ClearColumn {
    MatrixView<T> a;
    Index column;
    __device__ void operator()(Index, Index i) const { a(i, column) = T(0); }
};

template <class T>
struct GetDiagonal {
    MatrixView<const T> a;
    T* values;
    __device__ void operator()(Index, Index i) const { values[i] = a(i, i); }
};

template <class T>
struct SetDiagonal {
    MatrixView<T> a;
    const T* values;
    __device__ void operator()(Index, Index i) const { a(i, i) = values[i]; }
};

/// C_ij = A_{order_i order_j}
template <class T>
struct Permute {
    MatrixView<const T> a;
    MatrixView<T> c;
    const std::int32_t* order;
    __device__ void operator()(Index i, Index j) const { c(i, j) = a(order[i], order[j]); }
};

/// *failed = 1 unless the factorizations, of so many blocks, succeeded and every diagonal element is positive and
/// finite.
template <class T>
struct CheckFactor {
    MatrixView<const T> a;
    const int* infos;
    Index blocks;
    int* failed;
    __device__ void operator()(Index, Index i) const {
        const T d = a(i, i);
        if ((i < blocks && infos[i] != 0) || !(d > T(0)) || !detail::is_finite(d)) *failed = 1;
    }
};

template <class T, class G>
struct Round {
    G grid;
    MatrixView<const T> c;
    const std::int32_t* group_of;
    MatrixView<const T> scales, zeros;
    MatrixView<Code> codes;
    __device__ void operator()(Index k, Index r) const {
        const Index g = group_of[k];
        codes(k, r) = static_cast<Code>(grid.encode(c(k, r), GridParams<T>{scales(g, r), zeros(g, r)}));
    }
};

template <class T, class G>
struct SubtractDecoded {
    G grid;
    MatrixView<const Code> codes;
    const std::int32_t* group_of;
    MatrixView<const T> scales, zeros;
    MatrixView<T> c;
    __device__ void operator()(Index k, Index r) const {
        const Index g = group_of[k];
        c(k, r) -= grid.decode(codes(k, r), GridParams<T>{scales(g, r), zeros(g, r)});
    }
};

inline constexpr int dot_threads = 256;
inline constexpr int dot_blocks = 1024;

/// partial[block] = sum of A_ij C_ij over the rows of the block, in an order that depends on the shape only.
template <class T>
__global__ void dot_kernel(MatrixView<const T> a, MatrixView<const T> c, double* partial) {
    __shared__ double sums[dot_threads];
    double sum = 0;
    for (Index i = blockIdx.x; i < a.rows; i += gridDim.x) {
        for (Index j = threadIdx.x; j < a.cols; j += dot_threads) sum += double(a(i, j)) * double(c(i, j));
    }
    sums[threadIdx.x] = sum;
    for (int half = dot_threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

/// body(i, j) for every element of a (rows, cols) matrix.
template <class Body>
void visit(cudaStream_t stream, Index rows, Index cols, Body body) {
    if (rows == 0 || cols == 0) return;
    constexpr int threads = 256;
    const dim3 blocks(static_cast<unsigned>((cols + threads - 1) / threads),
                      static_cast<unsigned>(std::min<Index>(rows, 32768)));
    visit_kernel<<<blocks, threads, 0, stream>>>(rows, cols, body);
    check_launch("visit_kernel");
}

/// partial: dot_blocks sums.
template <class T>
void dot(cudaStream_t stream, MatrixView<const T> a, MatrixView<const T> c, double* partial) {
    dot_kernel<<<dot_blocks, dot_threads, 0, stream>>>(a, c, partial);
    check_launch("dot_kernel");
}

}  // namespace residua::detail::cuda
