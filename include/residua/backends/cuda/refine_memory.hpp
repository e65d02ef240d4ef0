#pragma once

#include <cstddef>

#include "residua/backends/refine_block.hpp"
#include "residua/core/math.hpp"

namespace residua::detail::cuda {

/// Output rows and warps of a thread block of the refinement.
inline constexpr int refine_rows = 32;
inline constexpr int refine_warps = 8;

/// What a thread block keeps for a block of `width` columns, in elements.
template <class T>
struct RefineMemory {
    static constexpr int chunk = 8;  // of columns that are swept together

    int width;
    RESIDUA_HOST_DEVICE constexpr int length() const { return (width + 3) / 4 * 4; }  // of a row of H
    RESIDUA_HOST_DEVICE constexpr int gram() const { return width * length() + refine_rows; }
    RESIDUA_HOST_DEVICE constexpr int array() const { return width * refine_rows; }
    RESIDUA_HOST_DEVICE constexpr int inverse() const { return static_cast<int>(refined_columns); }
    RESIDUA_HOST_DEVICE constexpr std::size_t bytes() const {
        return static_cast<std::size_t>(gram() + 2 * array() + inverse()) * sizeof(T) +
               static_cast<std::size_t>(array());
    }
};

template <class T>
struct RefineScratch {
    T along[refine_warps][refine_rows];
    T curvature[refine_warps][refine_rows];
};

/// The most columns of a block, a multiple of 32, whose thread block fits into so much shared memory; 0 if none do.
template <class T>
constexpr Index refine_columns_within(std::size_t shared_bytes) {
    Index width = refined_columns;
    while (width > 0 &&
           RefineMemory<T>{static_cast<int>(width)}.bytes() + sizeof(RefineScratch<T>) > shared_bytes)
        width -= 32;
    return width;
}

}  // namespace residua::detail::cuda
