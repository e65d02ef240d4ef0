#pragma once

namespace llama::cuda {

template <class T, class Combine>
__device__ T warp_reduce(T value, Combine combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

/// The same value on all threads of a block of whole warps, combined from one of each.
template <class T, class Combine>
__device__ T block_reduce(T value, Combine combine) {
    __shared__ T parts[32];
    const int warps = int(blockDim.x) / 32;
    value = warp_reduce(value, combine);
    __syncthreads();  // of an earlier use
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
    for (int w = 1; w < warps; ++w) value = combine(value, parts[w]);
    return value;
}

template <class T>
__device__ T block_sum(T value) {
    return block_reduce(value, [](T a, T b) { return a + b; });
}

}  // namespace llama::cuda
