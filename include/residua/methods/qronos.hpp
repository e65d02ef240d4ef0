#pragma once

#include "residua/methods/method.hpp"

namespace residua {

/// Qronos (arXiv 2505.11695): the first column is quantized with all others held at their original weights,
///
///     c_1 = w_1 + (W D)_1 / H_11,
///
/// then every column with those behind it at the least-squares solution of  |W X_fp - Q X|^2:  what QEP does
/// with alpha = 1. H is damped here as for every other method.
///
/// Needs   moments with reference inputs (H and D).
/// Costs   what QEP costs.
struct Qronos {
    static constexpr const char* name = "Qronos";
    static constexpr Residuals residuals = Residuals::OfAllColumns;
    static constexpr bool first_column_alone = true;

    void validate() const {}

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T, T) const {
        return q;
    }
    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T residual(T, T w) const {
        return w;
    }
};

static_assert(Method<Qronos>);

}  // namespace residua
