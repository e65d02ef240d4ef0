#pragma once

#include <limits>

#include "residua/core/types.hpp"

namespace residua::detail {

/// Whether a b elements of `bytes` bytes have a size that an Index holds, for a, b >= 0. Sizes that come from
/// a caller or a file are asked this before they are multiplied.
[[nodiscard]] constexpr bool product_fits(Index a, Index b, std::size_t bytes = 1) {
    const Index limit = std::numeric_limits<Index>::max() / static_cast<Index>(bytes);
    return b == 0 || a <= limit / b;
}

}  // namespace residua::detail
