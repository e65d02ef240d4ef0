#pragma once

#include <algorithm>

#include "residua/core/view.hpp"

/// Kernels over a tile of output rows that lie side by side: every inner loop runs over a fixed number of
/// lanes without branches, so that the compiler turns it into vector code.
namespace residua::detail::lanes {

/// Rows of a tile.
template <Real T>
inline constexpr Index width = 128 / static_cast<Index>(sizeof(T));

/// Copies `active` lanes and clears the rest.
template <Index L, Real T>
void load(const T* source, Index active, T* lane) {
    if (active == L) {
        std::copy_n(source, L, lane);
    } else {
        std::copy_n(source, active, lane);
        std::fill_n(lane + active, L - active, T(0));
    }
}

/// sum += sum_{i < count} coefficients[i] * values[i], with `values` (count, L).
template <Index L, Real T>
void accumulate(const T* coefficients, const T* values, Index count, T* sum) {
    // two chains hide the latency of the multiply-add
    T even[L];
    T odd[L];
    for (Index l = 0; l < L; ++l) even[l] = sum[l];
    for (Index l = 0; l < L; ++l) odd[l] = T(0);
    Index i = 0;
    for (; i + 2 <= count; i += 2) {
        const T a = coefficients[i];
        const T b = coefficients[i + 1];
        const T* x = values + i * L;
        for (Index l = 0; l < L; ++l) even[l] += a * x[l];
        for (Index l = 0; l < L; ++l) odd[l] += b * x[L + l];
    }
    if (i < count) {
        const T a = coefficients[i];
        const T* x = values + i * L;
        for (Index l = 0; l < L; ++l) even[l] += a * x[l];
    }
    for (Index l = 0; l < L; ++l) sum[l] = even[l] + odd[l];
}

}  // namespace residua::detail::lanes
