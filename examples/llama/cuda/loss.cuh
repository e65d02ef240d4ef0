#pragma once

#include <residua/cuda.hpp>

#include "reduce.cuh"

namespace llama::cuda {

using residua::Index;

/// losses_t = log sum_i exp(logits_ti) - logits_t,next: a thread block for each row.
template <class T>
__global__ void loss_kernel(residua::MatrixView<const T> logits, const std::int32_t* next, float* losses) {
    const T* row = logits.row(blockIdx.x);
    float top = -INFINITY;
    for (Index j = threadIdx.x; j < logits.cols; j += blockDim.x) top = fmaxf(top, row[j]);
    top = block_reduce(top, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0;
    for (Index j = threadIdx.x; j < logits.cols; j += blockDim.x) sum += expf(row[j] - top);
    sum = block_sum(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) + top - row[next[blockIdx.x]];
}

/// logits: (rows, vocabulary); next: the tokens that came; losses: (rows).
inline void loss(cudaStream_t stream, residua::MatrixView<const float> logits, const std::int32_t* next,
                 float* losses) {
    if (logits.rows == 0) return;
    loss_kernel<float><<<unsigned(logits.rows), 256, 0, stream>>>(logits, next, losses);
    residua::detail::cuda::check_launch("loss_kernel");
}

inline constexpr int square_blocks = 512;

template <class T>
__global__ void squares_kernel(const T* x, Index count, double* sums) {
    double sum = 0;
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += Index(gridDim.x) * blockDim.x)
        sum += double(x[i]) * double(x[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// The sum of `count` squares, in square_blocks parts.
inline void squares(cudaStream_t stream, const float* x, Index count, double* sums) {
    squares_kernel<float><<<square_blocks, 256, 0, stream>>>(x, count, sums);
    residua::detail::cuda::check_launch("squares_kernel");
}

}  // namespace llama::cuda
