#pragma once

#include <residua/cuda.hpp>

#include "bf16.cuh"

/// What is done to each token's features on their own. Rows are a multiple of 8 features long.
namespace llama::cuda {

/// body(i, j) for every row i and every eighth column j.
template <class Body>
__global__ void for_eights_kernel(Index rows, Index cols, Body body) {
    const Index j = (Index(blockIdx.x) * blockDim.x + threadIdx.x) * vector_width;
    if (j >= cols) return;
    for (Index i = blockIdx.y; i < rows; i += gridDim.y) body(i, j);
}

template <class Body>
void for_eights(cudaStream_t stream, Index rows, Index cols, Body body) {
    constexpr Index threads = 128, most_blocks = 65535;
    if (rows == 0 || cols == 0) return;
    const Index vectors = (cols + vector_width - 1) / vector_width;
    const dim3 blocks(unsigned((vectors + threads - 1) / threads), unsigned(std::min(rows, most_blocks)));
    for_eights_kernel<<<blocks, unsigned(std::min(threads, (vectors + 31) / 32 * 32)), 0, stream>>>(
        rows, cols, body);
    residua::detail::cuda::check_launch("for_eights_kernel");
}

/// The rows of `table` that tokens choose.
struct Gather {
    residua::MatrixView<const bfloat16> table;
    const std::int32_t* tokens;
    residua::MatrixView<float> x;
    __device__ void operator()(Index i, Index j) const {
        Eight::load(table.row(tokens[i]) + j).store(x.row(i) + j);
    }
};

/// silu(g) * u, in place of g.
struct SwiGLU {
    residua::MatrixView<bfloat16> gate;
    residua::MatrixView<const bfloat16> up;
    __device__ void operator()(Index i, Index j) const {
        Eight g = Eight::load(gate.row(i) + j);
        const Eight u = Eight::load(up.row(i) + j);
#pragma unroll
        for (int k = 0; k < vector_width; ++k) g.v[k] = g.v[k] / (1.0f + __expf(-g.v[k])) * u.v[k];
        g.store(gate.row(i) + j);
    }
};

/// y_t += bias
template <class T>
struct AddBias {
    residua::MatrixView<T> y;
    const float* bias;
    __device__ void operator()(Index i, Index j) const {
        Eight values = Eight::load(y.row(i) + j);
        const Eight b = Eight::load(bias + j);
#pragma unroll
        for (int k = 0; k < vector_width; ++k) values.v[k] += b.v[k];
        values.store(y.row(i) + j);
    }
};

struct Narrow {
    residua::MatrixView<const float> x;
    residua::MatrixView<bfloat16> y;
    __device__ void operator()(Index i, Index j) const { Eight::load(x.row(i) + j).store(y.row(i) + j); }
};

}  // namespace llama::cuda
