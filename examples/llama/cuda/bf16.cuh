#pragma once

#include "requirements.hpp"

/// bfloat16 values as kernels move them: eight at a time, in 16 bytes, with arithmetic in float.
namespace llama::cuda {

using residua::bfloat16;

/// Two neighbours in a register, the first one in its lower half.
__device__ inline std::uint32_t pack(float first, float second) {
    std::uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
__device__ inline float first_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float second_of(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// Eight values, from and to addresses that are multiples of 16 bytes.
struct Eight {
    float v[vector_width];

    __device__ static Eight load(const bfloat16* from) {
        const uint4 pairs = *reinterpret_cast<const uint4*>(from);
        return {{first_of(pairs.x), second_of(pairs.x), first_of(pairs.y), second_of(pairs.y),
                 first_of(pairs.z), second_of(pairs.z), first_of(pairs.w), second_of(pairs.w)}};
    }
    __device__ static Eight load(const float* from) {
        const float4 a = *reinterpret_cast<const float4*>(from);
        const float4 b = *reinterpret_cast<const float4*>(from + 4);
        return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    }
    __device__ void store(bfloat16* to) const {
        *reinterpret_cast<uint4*>(to) =
            make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    }
    __device__ void store(float* to) const {
        *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
        *reinterpret_cast<float4*>(to + 4) = make_float4(v[4], v[5], v[6], v[7]);
    }
};

}  // namespace llama::cuda
