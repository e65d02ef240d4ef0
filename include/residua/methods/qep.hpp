#pragma once

#include "residua/methods/method.hpp"

namespace residua {

/// QEP (quantization error propagation, Arai and Ichikawa, NeurIPS 2025, arXiv 2504.09629): GPTQ on the
/// weights W* = W + alpha W D H^-1, which correct for what earlier layers did to the inputs.
///
/// With alpha = 1, W* is the least-squares solution of  |W X_fp - W* X|^2,  which GPTAQ and ResComp approach
/// column by column. That fits the calibration tokens; half of it, the paper's default, generalizes best.
/// W* itself is not formed: W* R = W R + alpha W M.
///
/// Needs   moments with reference inputs (H and D).
/// Costs   n^3/3 (R) + m n^2, and the lesser of n^3 + 2 m n^2 (M, which all weights that read the same input
///         share) and 3 m n^2 operations.
struct QEP {
    static constexpr const char* name = "QEP";
    static constexpr Residuals residuals = Residuals::OfAllColumns;

    double alpha = 0.5;  ///< part of the correction that is applied; 0 is GPTQ

    void validate() const { require(alpha >= 0 && alpha <= 1, "QEP: alpha is", alpha, "in [0, 1]"); }

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T, T) const {
        return q;
    }
    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T residual(T, T w) const {
        return T(alpha) * w;
    }
};

static_assert(Method<QEP>);

}  // namespace residua
