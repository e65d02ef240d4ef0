#pragma once

#include <residua/cuda.hpp>

#include "bf16.cuh"
#include "reduce.cuh"

namespace llama::cuda {

/// residua::ActivationQuantizer of one group of one row, a warp for each; what is decoded is rounded to bfloat16.
template <class T>
__global__ void round_activations_kernel(residua::MatrixView<T> x, Index group_size,
                                         residua::IntegerGrid grid, float clip) {
    const Index groups = (x.cols + group_size - 1) / group_size;
    const Index number = Index(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (number >= x.rows * groups) return;
    const Index first = number % groups * group_size;
    const Index end = min(first + group_size, x.cols);
    T* row = x.row(number / groups);
    float low = 0, high = 0;
    bool finite = true;
    for (Index j = first + threadIdx.x % 32; j < end; j += 32) {
        const float value = row[j];
        low = fminf(low, value);
        high = fmaxf(high, value);
        finite = finite && residua::detail::is_finite(value);
    }
    low = warp_reduce(low, [](float a, float b) { return fminf(a, b); });
    high = warp_reduce(high, [](float a, float b) { return fmaxf(a, b); });
    finite = __all_sync(0xffffffffu, finite);
    const auto params = grid.params(clip * low, clip * high);
    for (Index j = first + threadIdx.x % 32; j < end; j += 32)
        row[j] = T(finite ? grid.decode(grid.encode(float(row[j]), params), params) : NAN);
}

/// x: (tokens, features), in place.
inline void round_activations(cudaStream_t stream, const residua::ActivationQuantizer& quantizer,
                              residua::MatrixView<bfloat16> x) {
    quantizer.validate();
    if (x.rows == 0) return;
    constexpr Index warps = 8;
    const Index width = quantizer.group_size == -1 ? x.cols : std::min(quantizer.group_size, x.cols);
    const Index tasks = x.rows * ((x.cols + width - 1) / width);
    const residua::IntegerGrid grid{.bits = quantizer.bits, .symmetry = quantizer.symmetry};
    round_activations_kernel<bfloat16>
        <<<unsigned((tasks + warps - 1) / warps), unsigned(32 * warps), 0, stream>>>(
            x, width, grid, float(quantizer.clip_ratio));
    residua::detail::cuda::check_launch("round_activations_kernel");
}

}  // namespace llama::cuda
