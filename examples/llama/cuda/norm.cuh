#pragma once

#include <residua/cuda.hpp>

#include "bf16.cuh"
#include "reduce.cuh"

namespace llama::cuda {

inline constexpr int norm_threads = 128;

/// y_t = x_t / sqrt(mean x_t^2 + epsilon) * weight: a thread block for each row t.
template <class In>
__global__ void rms_norm_kernel(residua::MatrixView<const In> x, const float* weight, float epsilon,
                                residua::MatrixView<bfloat16> y) {
    const In* from = x.row(blockIdx.x);
    const int step = int(blockDim.x) * vector_width;
    const int start = int(threadIdx.x) * vector_width;
    float squares = 0;
    for (int j = start; j < x.cols; j += step) {
        const Eight values = Eight::load(from + j);
        for (const float v : values.v) squares += v * v;
    }
    const float scale = rsqrtf(block_sum(squares) / float(x.cols) + epsilon);
    for (int j = start; j < x.cols; j += step) {
        Eight values = Eight::load(from + j);
        const Eight weights = Eight::load(weight + j);
#pragma unroll
        for (int k = 0; k < vector_width; ++k) values.v[k] *= scale * weights.v[k];
        values.store(y.row(blockIdx.x) + j);
    }
}

/// x, y: (tokens, features), features a multiple of 8; y may be x. weight: (features), in device memory.
template <class In>
void rms_norm(cudaStream_t stream, residua::MatrixView<const In> x, const float* weight, float epsilon,
              residua::MatrixView<bfloat16> y) {
    if (x.rows == 0) return;
    const int threads = x.cols >= norm_threads * vector_width ? norm_threads : 32;
    rms_norm_kernel<In><<<unsigned(x.rows), threads, 0, stream>>>(x, weight, epsilon, y);
    residua::detail::cuda::check_launch("rms_norm_kernel");
}

}  // namespace llama::cuda
