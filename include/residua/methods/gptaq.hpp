#pragma once

#include "residua/methods/method.hpp"

namespace residua {

/// GPTAQ (arXiv 2504.02692): align the quantized layer with the full-precision output.
///
/// Minimizes  |W X_fp - Q X|^2  one column at a time; the residual v_i (x_fp - x)_i of each input neuron is
/// pushed onto the columns that are still free.
///
/// Needs   moments with reference inputs (H and D).
/// Costs   2/3 n^3 (R and the upper triangle of M) + 2 m n^2 operations.
struct GPTAQ {
    static constexpr const char* name = "GPTAQ";
    static constexpr Residuals residuals = Residuals::OfColumnsBefore;

    double alpha = 0.25;  ///< weight of the residual; 0 is GPTQ

    void validate() const { require(alpha >= 0 && alpha <= 1, "GPTAQ: alpha is", alpha, "in [0, 1]"); }

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T, T) const {
        return q;
    }
    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T residual(T v, T) const {
        return T(alpha) * v;
    }
};

static_assert(Method<GPTAQ>);

}  // namespace residua
