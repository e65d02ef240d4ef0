#pragma once

#include "residua/core/error.hpp"
#include "residua/core/rule.hpp"

namespace residua {

/// Shifted target: minimizing |W X_fp - Q X|^2 over Q is GPTQ on the least-squares target W* = W + W D H^-1.
///
/// What GPTAQ and ResComp approximate column by column is here one product and two triangular solves. The
/// full shift fits the calibration tokens; half of it generalizes best.
///
/// Needs   moments with reference inputs (H and D).
/// Costs   n^3/3 (factor) + m n^2, and the lesser of 4 m n^2 and 2 n^3 + 2 m n^2 operations; the 2 n^3 are
/// shared
///         by all weights that read the same input.
struct ShiftedTarget {
    static constexpr const char* name = "shifted target";
    static constexpr Target target = Target::Shifted;
    static constexpr bool residual_feedback = false;

    double alpha = 0.5;  ///< part of the shift that is applied; 0 is GPTQ

    void validate() const {
        require(alpha >= 0 && alpha <= 1, "ShiftedTarget: alpha is", alpha, "in [0, 1]");
    }

    template <Real T>
    RESIDUA_HOST_DEVICE constexpr T fed_back(T q, T, T) const {
        return q;
    }
    double shift() const { return alpha; }
};

static_assert(Rule<ShiftedTarget>);

}  // namespace residua
