#pragma once

#include <cstdint>
#include <type_traits>

#include "residua/backends/cuda/vector.cuh"
#include "residua/core/types.hpp"

/// How a Hadamard transform's threads read and write their elements: rows of float, float16 or bfloat16 at
/// the ends, shared memory between.
namespace residua::detail::cuda {

/// An odd distance for every 32 elements: neither rows nor columns of 32 elements meet in a bank.
__host__ __device__ constexpr int padded(int i) { return i + (i >> 5); }

/// padded(i + (1 << shift)) - padded(i), for elements of one group of 32 where shift < 5.
__host__ __device__ constexpr int padded_step(int shift) {
    return shift < 5 ? 1 << shift : 33 << (shift - 5);
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bfloat16 x) { return x; }
__device__ inline float to_float(float16 x) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
}

#if __CUDA_ARCH__ >= 800
inline constexpr bool rounds_in_one_instruction = true;
#else
inline constexpr bool rounds_in_one_instruction = false;
#endif

/// T(x) for each, by one instruction where there is one.
template <class T, int V>
__device__ inline Vector<T, V> from_float(const float (&x)[V]) {
    Vector<T, V> y;
    if constexpr (std::is_same_v<T, float> || !rounds_in_one_instruction) {
        for (int k = 0; k < V; ++k) y.v[k] = T(x[k]);
    } else if constexpr (V == 2) {
        std::uint32_t both;
        if constexpr (std::is_same_v<T, float16>)
            asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(x[1]), "f"(x[0]));
        else
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(x[1]), "f"(x[0]));
        y.v[0].bits = static_cast<std::uint16_t>(both);
        y.v[1].bits = static_cast<std::uint16_t>(both >> 16);
    } else if constexpr (std::is_same_v<T, float16>) {
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.v[0].bits) : "f"(x[0]));
    } else {
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.v[0].bits) : "f"(x[0]));
    }
    return y;
}

/// Where a pass reads and writes: the row at its ends, with signs and scale, else shared memory.
template <class T>
struct HadamardPiece {
    const T* in;
    T* out;
    float* tile;
    const std::uint32_t* signs;  ///< 32 a word, set where -1; null: none
    int start;                   ///< first feature of the piece
    bool transposed;
    float scale;

    /// v_j = element i + (j << shift), and its V - 1 neighbours. One branch for all, so that loads overlap.
    template <int Count, int V>
    __device__ void load(bool first, int i, int shift, float (&v)[Count][V]) const {
        if (first) {
            const T* source = in + i;
            const int step = 1 << shift;
            Vector<T, V> x[Count];
#pragma unroll
            for (int j = 0; j < Count; ++j) x[j] = *reinterpret_cast<const Vector<T, V>*>(source + j * step);
#pragma unroll
            for (int j = 0; j < Count; ++j) {
#pragma unroll
                for (int k = 0; k < V; ++k) v[j][k] = to_float(x[j].v[k]) * scale;
            }
            if (signs && !transposed) apply_signs(i, shift, v);
        } else {
            const float* source = tile + padded(i);
            const int step = padded_step(shift);
#pragma unroll
            for (int j = 0; j < Count; ++j) {
#pragma unroll
                for (int k = 0; k < V; ++k) v[j][k] = source[j * step + k];
            }
        }
    }

    /// The opposite.
    template <int Count, int V>
    __device__ void store(bool last, int i, int shift, float (&v)[Count][V]) const {
        if (last) {
            if (signs && transposed) apply_signs(i, shift, v);
            T* target = out + i;
            const int step = 1 << shift;
#pragma unroll
            for (int j = 0; j < Count; ++j)
                *reinterpret_cast<Vector<T, V>*>(target + j * step) = from_float<T>(v[j]);
        } else {
            float* target = tile + padded(i);
            const int step = padded_step(shift);
#pragma unroll
            for (int j = 0; j < Count; ++j) {
#pragma unroll
                for (int k = 0; k < V; ++k) target[j * step + k] = v[j][k];
            }
        }
    }

  private:
    template <int Count, int V>
    __device__ void apply_signs(int i, int shift, float (&v)[Count][V]) const {
        const auto flip = [](float& value, std::uint32_t word) {
            value = __uint_as_float(__float_as_uint(value) ^ (word & 0x80000000u));
        };
        const int at = start + i;
        if (shift >= 5) {  // the same bit of all words
            const std::uint32_t* words = signs + (at >> 5);
            const int step = 1 << (shift - 5);
            const int up = 31 - (at & 31);
#pragma unroll
            for (int j = 0; j < Count; ++j) {
                const std::uint32_t word = __ldg(words + j * step);
#pragma unroll
                for (int k = 0; k < V; ++k) flip(v[j][k], word << (up - k));
            }
        } else {
#pragma unroll
            for (int j = 0; j < Count; ++j) {
                const int bit = at + (j << shift);
#pragma unroll
                for (int k = 0; k < V; ++k) flip(v[j][k], __ldg(signs + (bit >> 5)) << (31 - k - (bit & 31)));
            }
        }
    }
};

}  // namespace residua::detail::cuda
