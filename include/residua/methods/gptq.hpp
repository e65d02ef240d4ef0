#pragma once

#include "residua/methods/method.hpp"

namespace residua {

/// GPTQ (arXiv 2210.17323): each column's rounding error is compensated by the columns that are still free.
///
/// Minimizes  |(W - Q) X|^2  one column at a time.
///
/// Needs   moments (H).
/// Costs   n^3/3 (R) + m n^2 operations.
struct GPTQ {
    static constexpr const char* name = "GPTQ";
    static constexpr Residuals residuals = Residuals::None;

    void validate() const {}

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T, T) const {
        return q;
    }
};

static_assert(Method<GPTQ>);

}  // namespace residua
