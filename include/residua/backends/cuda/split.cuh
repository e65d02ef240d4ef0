#pragma once

#include <cuda_fp16.h>

#include <algorithm>

#include "residua/backends/cuda/error.hpp"
#include "residua/backends/cuda/vector.cuh"
#include "residua/core/view.hpp"

/// Float matrices as sums of two float16 ones, for products on tensor cores:
///
///     s A = A_high + A_low,   s a power of two that takes the largest element to [2^14, 2^15)
///
/// Elements keep 22 significant bits down to 2^-17 of the largest, and below that an absolute error of 2^-40
/// of it. NaN and infinity stay: they make both parts NaN or infinite.
namespace residua::detail::cuda {

/// A factor to be split, and where its parts go. Row i of the parts lies `stride` elements behind row i - 1;
/// beyond `a` they are zero, up to (rows, cols), cols a multiple of 8.
struct SplitFactor {
    MatrixView<const float> a;
    float16* high = nullptr;
    float16* low = nullptr;
    Index stride = 0;
    Index rows = 0, cols = 0;
    const unsigned* partners = nullptr;  ///< see below
    bool partners_of_rows = false;
};

/// Where rows of a right factor are split piece by piece, each has a scale of its own: row k that of a largest
/// element `partners[k]`. What multiplies it on the left is then scaled by that much less, so that all terms of a
/// sum have the scale of the greatest of all pieces, SplitScalars::largest[1]:
///
///     s_min A_k / s_k  times  s_k X_k,   s_min <= s_k

/// What a product of two split factors shares, in device memory.
struct SplitScalars {
    unsigned largest[2];  // bits of the largest absolute values of the factors
    float alpha;          // with the factors' scales taken out
    float beta;
    float one;
};

/// The exponent of s. Where the largest element is not finite or too small to tell, that of a number which is.
__device__ inline int split_exponent(unsigned largest) {
    const int exponent = static_cast<int>(largest >> 23) - 127;
    return 14 - (exponent < -100 ? -100 : exponent);
}

/// 2^exponent, exponent in [-126, 127].
__device__ inline float power_of_two(int exponent) {
    return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

/// s_min / s_k, which is at most 1; 0 where that is below all floats.
__device__ inline float partner_scale(unsigned largest, unsigned largest_of_all) {
    const int exponent = split_exponent(largest_of_all) - split_exponent(largest);
    return exponent < -126 ? 0.0f : power_of_two(exponent);
}

inline constexpr int split_threads = 256;

/// largest[b] = max(largest[b], |a_ij|), a that of factor b = blockIdx.y, as bits, which order as the values do;
/// NaN counts as more than infinity.
template <int V>
__global__ void __launch_bounds__(split_threads)
    largest_kernel(SplitFactor first, SplitFactor second, SplitScalars* scalars) {
    const MatrixView<const float> a = blockIdx.y == 0 ? first.a : second.a;
    const Index width = a.cols / V;
    const Index count = a.rows * width;
    unsigned largest = 0;
    const Index step = Index(gridDim.x) * split_threads;
#pragma unroll 4
    for (Index e = Index(blockIdx.x) * split_threads + threadIdx.x; e < count; e += step) {
        const auto values = *reinterpret_cast<const Vector<float, V>*>(a.row(e / width) + e % width * V);
#pragma unroll
        for (int v = 0; v < V; ++v) largest = max(largest, __float_as_uint(values.v[v]) & 0x7fffffffu);
    }
    largest = __reduce_max_sync(0xffffffffu, largest);
    if (threadIdx.x % 32 == 0 && largest > 0) atomicMax(&scalars->largest[blockIdx.y], largest);
}

/// Splits factor b = blockIdx.y, and completes the scalars.
template <int V>
__global__ void __launch_bounds__(split_threads)
    split_kernel(SplitFactor first, SplitFactor second, float alpha, float beta, SplitScalars* scalars) {
    constexpr int width = 8;
    const SplitFactor f = blockIdx.y == 0 ? first : second;
    const int exponent = split_exponent(scalars->largest[blockIdx.y]);
    const float scale = power_of_two(exponent);
    const Index along = f.cols / width;
    const Index count = f.rows * along;
    const Index step = Index(gridDim.x) * split_threads;
    for (Index e = Index(blockIdx.x) * split_threads + threadIdx.x; e < count; e += step) {
        const Index i = e / along;
        const Index j = e % along * width;
        Vector<float, width> a = {};
        if (i < f.a.rows) {
#pragma unroll
            for (int v = 0; v < width; v += V) {
                if (j + v < f.a.cols)
                    *reinterpret_cast<Vector<float, V>*>(a.v + v) =
                        *reinterpret_cast<const Vector<float, V>*>(f.a.row(i) + j + v);
            }
        }
        Vector<__half, width> high, low;
        if (f.partners) {
#pragma unroll
            for (int v = 0; v < width; ++v) {
                const Index k = f.partners_of_rows ? i : j + v;
                if (k < (f.partners_of_rows ? f.a.rows : f.a.cols))
                    a.v[v] *= partner_scale(f.partners[k], scalars->largest[1]);
            }
        }
#pragma unroll
        for (int v = 0; v < width; ++v) {
            const float scaled = a.v[v] * scale;
            high.v[v] = __float2half_rn(scaled);
            low.v[v] = __float2half_rn(scaled - __half2float(high.v[v]));
        }
        *reinterpret_cast<Vector<__half, width>*>(f.high + i * f.stride + j) = high;
        *reinterpret_cast<Vector<__half, width>*>(f.low + i * f.stride + j) = low;
    }
    if (blockIdx.x + blockIdx.y + threadIdx.x == 0) {
        const int other = split_exponent(scalars->largest[1]);
        scalars->alpha = alpha * power_of_two(-exponent) * power_of_two(-other);
        scalars->beta = beta;
        scalars->one = 1.0f;
    }
}

/// After rows have been split on their own: partners[k] = the largest element for the `count` rows from `first` on,
/// and that of all rows so far.
template <int Threads>
__global__ void __launch_bounds__(Threads) keep_largest_kernel(const SplitScalars* piece, unsigned* partners,
                                                               Index first, Index count, unsigned* of_all) {
    const Index k = Index(blockIdx.x) * Threads + threadIdx.x;
    if (k < count) partners[first + k] = piece->largest[0];
    if (k == 0) *of_all = first == 0 ? piece->largest[0] : max(*of_all, piece->largest[0]);
}

/// Whether four neighbours can be read at once.
inline bool in_quads(MatrixView<const float> a) {
    return reinterpret_cast<std::uintptr_t>(a.data) % 16 == 0 && a.stride % 4 == 0 && a.cols % 4 == 0;
}

inline dim3 split_blocks(Index elements) {
    constexpr Index most = 132 * 8;
    return dim3(static_cast<unsigned>(std::clamp<Index>(elements / (8 * split_threads), 1, most)), 2);
}

/// The largest elements of both factors; scalars->largest must be zero.
inline void find_largest(cudaStream_t stream, const SplitFactor& first, const SplitFactor& second,
                         SplitScalars* scalars) {
    const dim3 blocks = split_blocks(std::max(first.a.rows * first.a.cols, second.a.rows * second.a.cols));
    if (in_quads(first.a) && in_quads(second.a)) {
        largest_kernel<4><<<blocks, split_threads, 0, stream>>>(first, second, scalars);
    } else {
        largest_kernel<1><<<blocks, split_threads, 0, stream>>>(first, second, scalars);
    }
    check_launch("largest_kernel");
}

inline void split(cudaStream_t stream, const SplitFactor& first, const SplitFactor& second, float alpha,
                  float beta, SplitScalars* scalars) {
    const dim3 blocks = split_blocks(std::max(first.rows * first.cols, second.rows * second.cols));
    if (in_quads(first.a) && in_quads(second.a)) {
        split_kernel<4><<<blocks, split_threads, 0, stream>>>(first, second, alpha, beta, scalars);
    } else {
        split_kernel<1><<<blocks, split_threads, 0, stream>>>(first, second, alpha, beta, scalars);
    }
    check_launch("split_kernel");
}

inline void keep_largest(cudaStream_t stream, const SplitScalars* piece, unsigned* partners, Index first,
                         Index count, unsigned* of_all) {
    const auto blocks = static_cast<unsigned>((count + split_threads - 1) / split_threads);
    keep_largest_kernel<split_threads>
        <<<blocks, split_threads, 0, stream>>>(piece, partners, first, count, of_all);
    check_launch("keep_largest_kernel");
}

}  // namespace residua::detail::cuda
