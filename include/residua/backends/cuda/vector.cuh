#pragma once

#include "residua/core/types.hpp"

namespace residua::detail::cuda {

/// N neighbouring values, loaded and stored by as few instructions as their alignment allows.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vector {
    T v[N];
};

}  // namespace residua::detail::cuda
