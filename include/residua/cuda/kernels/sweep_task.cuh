#pragma once

#include "residua/backend/sweep_block.hpp"
#include "residua/core/rule.hpp"
#include "residua/cuda/kernels/fit.cuh"

/// What a sweep is told, and how a thread block lays out what it keeps.
namespace residua::cuda {

/// Views start at the first column of the block.
template <class T>
struct SweepTask {
    static constexpr int inline_entries = 1536;

    MatrixView<T> columns, forward;          // (extent, rows)
    MatrixView<const T> target, feedback;    // (extent, rows)
    MatrixView<const T> factor, projection;  // (extent, extent)
    MatrixView<Code> codes;                  // (width, rows)
    MatrixView<T> scales, zeros;             // (groups, rows)
    ResidualView view;
    GroupScales fit_on;
    Code* overflow;
    int width;                  // columns to quantize
    int extent;                 // columns that fits reach
    int fits;                   // groups to fit
    T* scratch;                 // tiles of all thread blocks, where shared memory is too small for one
    const std::int32_t* table;  // in device memory if it is too long for a kernel's parameters
    std::int32_t inline_table[inline_entries];

    __device__ int entry(int i) const { return table ? table[i] : inline_table[i]; }
    __device__ int group_of(int k) const { return entry(k); }
    __device__ int fit_begin(int f) const { return entry(width + 3 * f); }
    __device__ int fit_end(int f) const { return entry(width + 3 * f + 1); }
    __device__ int fit_id(int f) const { return entry(width + 3 * f + 2); }
};

/// What a thread block keeps, in elements.
///
/// Coefficients C_ij, j > i, are kept twice: `near` holds the 31 that follow the diagonal of each row, `far`
/// those right of the row's own 32 x 32 block, row blocks one after the other. Rows of `far` are padded by a
/// quad, so that columns of it lie in different banks.
template <class T, class M>
struct SweepMemory {
    static constexpr bool forwards = M::target == Target::Forwarded;

    int extent, width;
    bool two_views;

    __host__ __device__ int leading() const { return (extent + lanes - 1) / lanes * lanes; }
    __host__ __device__ int array() const { return extent * lanes; }
    __host__ __device__ int tile() const {
        return leading() + array() * (3 + (forwards ? 1 : 0) + (two_views ? 2 : 0));
    }
    __host__ __device__ int near(int i) const { return i * lanes; }
    __host__ __device__ int far_length(int block) const { return leading() - lanes * (block + 1) + 4; }
    __host__ __device__ int far_block(int block) const {
        return lanes * block * (leading() + 4) - lanes * lanes / 2 * block * (block + 1);
    }
    __host__ __device__ int far(int i, int j) const {
        const int block = i / lanes;
        return far_block(block) + i % lanes * far_length(block) + j - lanes * (block + 1);
    }
    __host__ __device__ int triangle() const { return near(leading()) + far_block(leading() / lanes); }
    __host__ __device__ int coefficients() const { return triangle() * (forwards ? 2 : 1); }
};

template <class T>
struct alignas(16) Quad {
    T v[4];
};

}  // namespace residua::cuda
