#pragma once

#include <cstdint>
#include <residua/core/types.hpp>
#include <vector>

namespace bench {

/// Host values in [-1, 1) around a random state that carries over from one column to the next, as
/// neighbouring activations are correlated in real layers.
template <class T = float>
std::vector<T> random_matrix(residua::Index rows, residua::Index cols, float carry, std::uint64_t seed) {
    std::vector<T> values(std::size_t(rows * cols));
    std::uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;
    float state = 0;
    for (T& v : values) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        state = carry * state + float(std::int64_t(random)) * 0x1p-63f;
        v = T(state);
    }
    return values;
}

}  // namespace bench
