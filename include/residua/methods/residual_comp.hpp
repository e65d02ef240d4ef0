#pragma once

#include "residua/methods/method.hpp"

namespace residua {

/// ResComp (arXiv 2604.07955): GPTAQ that also aligns with the original instead of the compensated weights.
///
/// The published method adds the residual beta (w_i - v_i) through a matrix of its own, built from H + D.
/// Since triu(H U', strict) U = I - diag(R) U for U = R^-1, the whole effect of that matrix is
/// a_i = alpha v_i + beta (w_i - v_i) and s_i = q_i - beta (w_i - v_i).
///
/// Needs   moments with reference inputs (H and D).
/// Costs   what GPTAQ costs.
struct ResidualComp {
    static constexpr const char* name = "ResComp";
    static constexpr Residuals residuals = Residuals::OfColumnsBefore;

    double alpha = 0.25;  ///< weight of the residual of the inputs
    double beta = 0.25;   ///< weight of the residual of the weights; 0 is GPTAQ

    void validate() const {
        require(alpha >= 0 && alpha <= 1, "ResidualComp: alpha is", alpha, "in [0, 1]");
        require(beta >= 0 && beta <= 1, "ResidualComp: beta is", beta, "in [0, 1]");
    }

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T v, T w) const {
        return q - T(beta) * (w - v);
    }
    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T residual(T v, T w) const {
        return T(alpha) * v + T(beta) * (w - v);
    }
};

/// GPTQ + ResComp: the part of ResComp that needs no reference inputs (D = 0).
///
/// Needs   moments (H); reference inputs are ignored.
/// Costs   what GPTQ costs.
struct GPTQResidualComp {
    static constexpr const char* name = "GPTQ+ResComp";
    static constexpr Residuals residuals = Residuals::None;

    double beta = 0.25;  ///< weight of the residual of the weights; 0 is GPTQ

    void validate() const { require(beta >= 0 && beta <= 1, "GPTQResidualComp: beta is", beta, "in [0, 1]"); }

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T v, T w) const {
        return q - T(beta) * (w - v);
    }
};

static_assert(Method<ResidualComp> && Method<GPTQResidualComp>);

}  // namespace residua
