#pragma once

#include <utility>

#include "residua/core/view.hpp"
#include "residua/transform/cuda/hadamard_piece.cuh"
#include "residua/transform/hadamard_base.hpp"

/// Hadamard transforms of rows: a thread block reads a piece of a row, transforms it in registers and shared
/// memory in a few passes, and writes it. One read and one write of the matrix.
namespace residua::detail::cuda {

/// Registers of one thread hold `1 << bits` elements that are `1 << shift` apart; bits < 0 is the factor H_K.
struct HadamardPass {
    int shift = 0;
    int bits = 0;
    bool pairs = false;  ///< of neighbouring elements, so that 16-bit types move 4 bytes a thread
};

struct HadamardPlan {
    static constexpr int most_passes = 8;

    int piece = 0;  ///< elements of a row that a thread block transforms
    int pieces = 0;
    int base = 1;             ///< K
    bool transposed = false;  ///< x H^T diag(s), else x diag(s) H
    float scale = 1;
    int count = 0;
    HadamardPass passes[most_passes] = {};

    void add(HadamardPass pass) { passes[count++] = pass; }
};

/// H_{2^Bits} on elements 2^shift apart.
template <int Bits, int V, class T>
__device__ void power_pass(const HadamardPiece<T>& piece, int size, int shift, bool first, bool last) {
    constexpr int radix = 1 << Bits;
    for (int t = V * threadIdx.x; t < size >> Bits; t += V * blockDim.x) {
        const int i = (t >> shift) << (shift + Bits) | (t & ((1 << shift) - 1));
        float v[radix][V];
        piece.load(first, i, shift, v);
#pragma unroll
        for (int half = 1; half < radix; half *= 2) {
#pragma unroll
            for (int j = 0; j < radix; ++j) {
                if (j & half) continue;
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    const float a = v[j][k];
                    v[j][k] = a + v[j + half][k];
                    v[j + half][k] = a - v[j + half][k];
                }
            }
        }
        piece.store(last, i, shift, v);
    }
}

/// For output j and inputs 4 q to 4 q + 3 of H_K: bit k is set where input 4 q + k is subtracted.
template <int K>
inline constexpr auto base_patterns = [] {
    std::array<unsigned char, K* K / 4> patterns = {};
    for (int j = 0; j < K; ++j) {
        for (int i = 0; i < K; ++i) {
            if (detail::hadamard::entry(*detail::hadamard::find_recipe(K), i, j) < 0)
                patterns[std::size_t(j * K / 4 + i / 4)] |= static_cast<unsigned char>(1 << i % 4);
        }
    }
    return patterns;
}();

template <int Pattern>
__device__ void add_term(float& y, const float (&sums)[8]) {
    if constexpr (Pattern < 8)
        y += sums[Pattern];
    else
        y -= sums[15 - Pattern];
}

template <int K, int Quad, int... J>
__device__ void add_quad(const float (&x)[K][1], float (&y)[K][1], std::integer_sequence<int, J...>) {
    const float a = x[4 * Quad][0];
    const float b = x[4 * Quad + 1][0];
    const float c = x[4 * Quad + 2][0];
    const float d = x[4 * Quad + 3][0];
    const float front[4] = {a + b, b - a, a - b, -a - b};
    const float back[2] = {c + d, d - c};
    const float sums[8] = {front[0] + back[0], front[1] + back[0], front[2] + back[0], front[3] + back[0],
                           front[0] + back[1], front[1] + back[1], front[2] + back[1], front[3] + back[1]};
    (add_term<base_patterns<K>[std::size_t(J * K / 4 + Quad)]>(y[J][0], sums), ...);
}

/// H_K on elements 2^shift apart, by the signed sums of four: K/4 + 4 additions for each value. The signs are
/// known to the compiler. The transpose of Paley's first construction is 2 I - H_K; the second is symmetric.
template <int K, class T>
__device__ void base_pass(const HadamardPiece<T>& piece, int size, int shift, bool transposed, bool last) {
    constexpr bool symmetric =
        detail::hadamard::find_recipe(K)->construction == detail::hadamard::Construction::PaleyII;
    for (int t = threadIdx.x; t < size / K; t += blockDim.x) {
        const int i = (t >> shift) * (K << shift) + (t & ((1 << shift) - 1));
        float x[K][1];
        float y[K][1] = {};
        piece.load(true, i, shift, x);
        [&]<int... Q>(std::integer_sequence<int, Q...>) {
            (add_quad<K, Q>(x, y, std::make_integer_sequence<int, K>()), ...);
        }
        (std::make_integer_sequence<int, K / 4>());
        if (!symmetric && transposed) {
#pragma unroll
            for (int j = 0; j < K; ++j) y[j][0] = 2 * x[j][0] - y[j][0];
        }
        if (last || shift >= 5) {
            piece.store(last, i, shift, y);
        } else {  // crosses groups of 32
#pragma unroll
            for (int j = 0; j < K; ++j) piece.tile[padded(i + (j << shift))] = y[j][0];
        }
    }
}

inline constexpr int base_outputs = 16;  ///< that a thread sums at a time

/// H_K of any order from `matrix` (outputs / 16, K inputs, 16), the last outputs padded. A warp sums 16
/// outputs of 64 columns.
template <class T>
__device__ void base_product(const HadamardPiece<T>& piece, int size, int shift, int order,
                             const float* matrix) {
    const int columns = size / order;
    const int tiles = (order + base_outputs - 1) / base_outputs;
    const int groups = (columns + 63) / 64;
    const int lane = threadIdx.x % 32;
    const auto first_element = [&](int column) {
        return (column >> shift) * (order << shift) + (column & ((1 << shift) - 1));
    };
    for (int work = threadIdx.x / 32; work < tiles * groups; work += blockDim.x / 32) {
        const int tile = work % tiles;
        const int column[2] = {work / tiles * 64 + lane, work / tiles * 64 + lane + 32};
        const bool active[2] = {column[0] < columns, column[1] < columns};
        const int i[2] = {active[0] ? first_element(column[0]) : 0, active[1] ? first_element(column[1]) : 0};
        const float4* coefficients = reinterpret_cast<const float4*>(matrix + tile * order * base_outputs);
        float sum[2][base_outputs] = {};
        for (int a = 0; a < order; a += 4) {
            float x[2][4][1];
            for (int c = 0; c < 2; ++c) piece.load(true, i[c] + (a << shift), shift, x[c]);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
#pragma unroll
                for (int o = 0; o < base_outputs; o += 4) {
                    const float4 h = __ldg(coefficients + ((a + k) * base_outputs + o) / 4);
                    for (int c = 0; c < 2; ++c) {
                        sum[c][o] += h.x * x[c][k][0];
                        sum[c][o + 1] += h.y * x[c][k][0];
                        sum[c][o + 2] += h.z * x[c][k][0];
                        sum[c][o + 3] += h.w * x[c][k][0];
                    }
                }
            }
        }
#pragma unroll
        for (int o = 0; o < base_outputs; ++o) {
            const int j = tile * base_outputs + o;
            for (int c = 0; c < 2; ++c) {
                if (j < order && active[c]) piece.tile[padded(i[c] + (j << shift))] = sum[c][o];
            }
        }
    }
}

inline constexpr int hadamard_threads = 384;

/// K: 1, an order whose signs the compiler knows, or 0 for a product with `matrix`.
template <int K, class T>
__global__ void __launch_bounds__(hadamard_threads, 2)
    hadamard_kernel(MatrixView<const T> x, MatrixView<T> y, const __grid_constant__ HadamardPlan plan,
                    const std::uint32_t* signs, const float* matrix) {
    extern __shared__ float tile[];
    const Index row = blockIdx.x / plan.pieces;
    const int start = int(blockIdx.x % plan.pieces) * plan.piece;
    const HadamardPiece<T> piece = {x.row(row) + start, y.row(row) + start, tile, signs, start,
                                    plan.transposed,    plan.scale};
    for (int p = 0; p < plan.count; ++p) {
        const HadamardPass& pass = plan.passes[p];
        const bool first = p == 0;
        const bool last = p == plan.count - 1;
        if (!first) __syncthreads();
        const auto power = [&]<int Bits>(std::integral_constant<int, Bits>) {
            if (pass.pairs && Bits < 5)
                power_pass < Bits, Bits<5 ? 2 : 1>(piece, plan.piece, pass.shift, first, last);
            else
                power_pass<Bits, 1>(piece, plan.piece, pass.shift, first, last);
        };
        switch (pass.bits) {
            case -1:
                if constexpr (K == 0) base_product(piece, plan.piece, pass.shift, plan.base, matrix);
                if constexpr (K > 1) base_pass<K>(piece, plan.piece, pass.shift, plan.transposed, last);
                break;
            case 0:
                power(std::integral_constant<int, 0>());
                break;
            case 1:
                power(std::integral_constant<int, 1>());
                break;
            case 2:
                power(std::integral_constant<int, 2>());
                break;
            case 3:
                power(std::integral_constant<int, 3>());
                break;
            case 4:
                power(std::integral_constant<int, 4>());
                break;
            case 5:
                power(std::integral_constant<int, 5>());
                break;
        }
    }
}

}  // namespace residua::detail::cuda
