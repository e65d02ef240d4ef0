#pragma once

#include "residua/backend/refine_block.hpp"
#include "residua/cuda/kernels/fit.cuh"

/// What a refinement pass over a block is told, and how a thread block lays out what it keeps.
namespace residua::cuda {

inline constexpr int refine_columns = static_cast<int>(refined_columns);

/// Views start at the first column of the block.
template <class T>
struct RefineTask {
    MatrixView<T> error, outside;  // (width, rows)
    MatrixView<const T> fresh;     // (width, rows)
    MatrixView<const T> gram;      // (width, width)
    MatrixView<Code> codes;        // (width, rows)
    MatrixView<T> scales;          // (groups, rows)
    MatrixView<const T> zeros;     // (groups, rows)
    MatrixView<double> tally;
    int width;
    bool backward;
    bool refits;
    int runs;  // of columns of one group, in the order of the pass
    std::int32_t run_end[refine_columns];
    std::int32_t run_group[refine_columns];

    __device__ int column(int p) const { return backward ? width - 1 - p : p; }
};

/// What a thread block keeps, in elements.
template <class T>
struct RefineMemory {
    static constexpr int chunk = 8;  // of columns that are swept together

    int width;
    __host__ __device__ int length() const { return (width + 3) / 4 * 4; }  // of a row of H
    __host__ __device__ int gram() const { return width * length() + lanes; }
    __host__ __device__ int array() const { return width * lanes; }
    __host__ __device__ int inverse() const { return refine_columns; }
    __host__ __device__ std::size_t bytes() const {
        return static_cast<std::size_t>(gram() + 2 * array() + inverse()) * sizeof(T) +
               static_cast<std::size_t>(array());
    }
};

template <class T>
struct RefineScratch {
    T along[warps][lanes];
    T curvature[warps][lanes];
};

}  // namespace residua::cuda
