#pragma once

#include <residua/cuda.hpp>

#include "bf16.cuh"

/// Weights from the forms that they arrive in.
namespace llama::cuda {

template <class From, class To>
__global__ void convert_kernel(const From* from, Index count, To* to) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += Index(gridDim.x) * blockDim.x)
        to[i] = To(float(from[i]));
}

template <class From, class To>
void convert(cudaStream_t stream, const From* from, Index count, To* to) {
    constexpr Index threads = 256, most_blocks = 4096;
    if (count == 0) return;
    convert_kernel<<<unsigned(std::min((count + threads - 1) / threads, most_blocks)), unsigned(threads), 0,
                     stream>>>(from, count, to);
    residua::detail::cuda::check_launch("convert_kernel");
}

/// A quantized layer in device memory, see residua::QuantizedMatrix.
struct QuantizedView {
    residua::MatrixView<const residua::Code> codes;  // (out, in)
    residua::MatrixView<const float> scales, zeros;  // (out, groups)
    const std::int32_t* group_index;                 // (in)
    residua::IntegerGrid grid;
};

template <class T>
__global__ void dequantize_kernel(QuantizedView q, residua::MatrixView<T> weights) {
    const Index j = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (j >= q.codes.cols) return;
    const Index group = q.group_index[j];
    for (Index i = blockIdx.y; i < q.codes.rows; i += gridDim.y) {
        const residua::GridParams<float> params{q.scales(i, group), q.zeros(i, group)};
        weights(i, j) = T(q.grid.decode(int(q.codes(i, j)), params));
    }
}

inline void dequantize(cudaStream_t stream, const QuantizedView& q, residua::MatrixView<bfloat16> weights) {
    constexpr Index threads = 256, most_blocks = 4096;
    const dim3 blocks(unsigned((q.codes.cols + threads - 1) / threads),
                      unsigned(std::min(q.codes.rows, most_blocks)));
    dequantize_kernel<bfloat16><<<blocks, unsigned(threads), 0, stream>>>(q, weights);
    residua::detail::cuda::check_launch("dequantize_kernel");
}

}  // namespace llama::cuda
