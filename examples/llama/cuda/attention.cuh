#pragma once

#include <residua/cuda.hpp>

#include "../config.hpp"
#include "bf16.cuh"

/// Causal attention by tensor cores, without a matrix of scores: softmax(q k' / sqrt(size)) v, tile by tile with a
/// running maximum and sum of each row (FlashAttention-2, arXiv 2307.08691).
namespace llama::cuda {

struct AttentionTask {
    residua::MatrixView<const bfloat16> q;     // (tokens, heads * size)
    residua::MatrixView<const bfloat16> k, v;  // (tokens, key_value_heads * size)
    residua::MatrixView<bfloat16> context;     // (tokens, heads * size)
    const std::int32_t* starts;                // of window w: its tokens are [starts[w], starts[w + 1])
    int size;
    int heads_per_key;
};

inline constexpr int attention_warps = 4;
inline constexpr int attention_rows = 16 * attention_warps;  // queries of a thread block, and keys of a tile

/// `Size` features, of which those behind the head's are zeros. Rows are padded, so that the eight that a warp reads at
/// a time lie in different banks.
template <int Size>
struct AttentionMemory {
    static constexpr int stride = Size + 8;
    static constexpr int stages = Size > 128 ? 1 : 2;

    struct Tile {
        bfloat16 rows[attention_rows][stride];
    };
    Tile k[stages], v[stages];
};

__device__ inline unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/// Four 8 x 8 matrices, a row's address from each lane.
__device__ inline void load_matrices(const bfloat16* row, unsigned (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void load_matrices_transposed(const bfloat16* row, unsigned (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// C += A B for A (16, 16), B (16, 8).
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Starts the copy of rows [first, end) of one head, at most a tile; zeros fill the rest of it.
template <int Size>
__device__ void load_tile(residua::MatrixView<const bfloat16> x, Index first, Index end, Index column,
                          int size, typename AttentionMemory<Size>::Tile& tile) {
    constexpr int pieces = Size / vector_width;
    for (int e = int(threadIdx.x); e < attention_rows * pieces; e += 32 * attention_warps) {
        const int row = e / pieces;
        const int j = e % pieces * vector_width;
        const bool inside = first + row < end && j < size;
        const bfloat16* from = x.row(inside ? first + row : first) + column + (inside ? j : 0);
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(&tile.rows[row][j])),
            "l"(from), "r"(inside ? 16 : 0)
            : "memory");
    }
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// A thread block for 64 queries of one head of one window, 16 for each warp. Of its results, a lane holds those of
/// rows lane / 4 and lane / 4 + 8, two neighbouring columns in each eight.
template <int Size>
__global__ void __launch_bounds__(32 * attention_warps) attention_kernel(AttentionTask task) {
    using Memory = AttentionMemory<Size>;
    constexpr int key_tiles = attention_rows / 8;
    constexpr int feature_tiles = Size / 8;
    extern __shared__ __align__(16) unsigned char bytes[];
    Memory& memory = *reinterpret_cast<Memory*>(bytes);
    const Index start = task.starts[blockIdx.z];
    const Index end = task.starts[blockIdx.z + 1];
    const int tile = int(gridDim.x - 1 - blockIdx.x);  // those with most keys first
    const Index first = start + Index(tile) * attention_rows;
    if (first >= end) return;
    const Index head = Index(blockIdx.y) * task.size;
    const Index key_head = Index(blockIdx.y) / task.heads_per_key * task.size;
    const int lane = int(threadIdx.x) % 32;
    const int row = int(threadIdx.x) / 32 * 16 + lane / 4;  // and row + 8, of the tile

    unsigned q[Size / 16][4];
    load_tile<Size>(task.q, first, end, head, task.size, memory.v[0]);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Size / 16; ++i)
        load_matrices(&memory.v[0].rows[int(threadIdx.x) / 32 * 16 + lane % 16][16 * i + lane / 16 * 8],
                      q[i]);
    __syncthreads();

    const auto load_keys = [&](int t) {
        const Index at = start + Index(t) * attention_rows;
        load_tile<Size>(task.k, at, end, key_head, task.size, memory.k[t % Memory::stages]);
        load_tile<Size>(task.v, at, end, key_head, task.size, memory.v[t % Memory::stages]);
        commit_copies();
    };
    const float scale = rsqrtf(float(task.size)) * 1.44269504f;  // exponentials are powers of two
    float sums[feature_tiles][4] = {};
    float top[2] = {-INFINITY, -INFINITY};
    float total[2] = {};
    load_keys(0);
    for (int t = 0; t <= tile; ++t) {
        if (Memory::stages > 1 && t < tile) {
            load_keys(t + 1);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        const auto& k = memory.k[t % Memory::stages];
        const auto& v = memory.v[t % Memory::stages];

        float scores[key_tiles][4] = {};
#pragma unroll
        for (int i = 0; i < Size / 16; ++i) {
#pragma unroll
            for (int n = 0; n < key_tiles; n += 2) {
                unsigned b[4];
                load_matrices(&k.rows[8 * n + lane / 16 * 8 + lane % 8][16 * i + lane / 8 % 2 * 8], b);
                multiply_add(scores[n], q[i], b[0], b[1]);
                multiply_add(scores[n + 1], q[i], b[2], b[3]);
            }
        }
        if (t == tile) {  // keys behind a query are hidden
#pragma unroll
            for (int n = 0; n < key_tiles; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (8 * n + lane % 4 * 2 + e % 2 > row + e / 2 * 8) scores[n][e] = -INFINITY;
            }
        }

        float shrink[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = top[half];
#pragma unroll
            for (int n = 0; n < key_tiles; ++n)
                highest = fmaxf(highest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
            shrink[half] = exp2f((top[half] - highest) * scale);  // every row sees a key of the first tile
            top[half] = highest;
            float sum = 0;
#pragma unroll
            for (int n = 0; n < key_tiles; ++n) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    scores[n][e] = exp2f((scores[n][e] - highest) * scale);
                    sum += scores[n][e];
                }
            }
            total[half] = total[half] * shrink[half] + sum;
        }
#pragma unroll
        for (int n = 0; n < feature_tiles; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[n][e] *= shrink[e / 2];
        }

#pragma unroll
        for (int i = 0; i < attention_rows / 16; ++i) {  // weights as the left factor, where they are
            const float(&left)[4] = scores[2 * i];
            const float(&right)[4] = scores[2 * i + 1];
            const unsigned a[4] = {pack(left[0], left[1]), pack(left[2], left[3]), pack(right[0], right[1]),
                                   pack(right[2], right[3])};
#pragma unroll
            for (int n = 0; n < feature_tiles; n += 2) {
                unsigned b[4];
                load_matrices_transposed(&v.rows[16 * i + lane % 16][8 * n + lane / 16 * 8], b);
                multiply_add(sums[n], a, b[0], b[1]);
                multiply_add(sums[n + 1], a, b[2], b[3]);
            }
        }
        __syncthreads();
        if (Memory::stages == 1 && t < tile) load_keys(t + 1);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = total[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const Index t = first + row + 8 * half;
        if (t >= end) continue;
        const float inverse = 1.0f / sum;
#pragma unroll
        for (int n = 0; n < feature_tiles; ++n) {
            const int j = 8 * n + lane % 4 * 2;
            if (j < task.size)
                *reinterpret_cast<std::uint32_t*>(task.context.row(t) + head + j) =
                    pack(sums[n][2 * half] * inverse, sums[n][2 * half + 1] * inverse);
        }
    }
}

/// `longest`: tokens of the longest of so many windows. The head size is a multiple of 8, at most 256.
inline void attention(cudaStream_t stream, const AttentionTask& task, Index windows, Index longest) {
    if (windows == 0 || longest == 0) return;
    const auto start = [&]<int Size>(std::integral_constant<int, Size>) {
        constexpr int bytes = int(sizeof(AttentionMemory<Size>));
        residua::detail::cuda::check(
            cudaFuncSetAttribute(attention_kernel<Size>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            "cudaFuncSetAttribute");
        const dim3 blocks(unsigned((longest + attention_rows - 1) / attention_rows),
                          unsigned(task.q.cols / task.size), unsigned(windows));
        attention_kernel<Size><<<blocks, 32 * attention_warps, bytes, stream>>>(task);
        residua::detail::cuda::check_launch("attention_kernel");
    };
    if (task.size <= 64) return start(std::integral_constant<int, 64>());
    if (task.size <= 128) return start(std::integral_constant<int, 128>());
    start(std::integral_constant<int, 256>());
}

}  // namespace llama::cuda
