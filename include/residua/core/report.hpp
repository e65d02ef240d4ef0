#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "residua/core/types.hpp"

namespace residua {

/// The outcome of a solve. Anything but Success comes without codes.
enum class Status {
    Success,
    Cancelled,            ///< the progress callback returned false
    NonFiniteMoments,     ///< H or D holds NaN or infinity: the activations did, or their sums overflowed
    NonFiniteWeights,     ///< the weights hold NaN or infinity
    NotPositiveDefinite,  ///< H could not be factored with the largest damping that the policy allows
    Overflow,             ///< compensated weights left the range of the element type
};

constexpr std::string_view to_string(Status status) {
    switch (status) {
        case Status::Success:
            return "success";
        case Status::Cancelled:
            return "cancelled";
        case Status::NonFiniteMoments:
            return "non-finite moments";
        case Status::NonFiniteWeights:
            return "non-finite weights";
        case Status::NotPositiveDefinite:
            return "not positive definite";
        case Status::Overflow:
            return "overflow";
    }
    return "unknown";
}

/// Squared output errors of quantized weights Q on the calibration tokens, E = W - Q, from the moments alone.
struct Objective {
    /// |E X|^2 = tr(E H E').
    double symmetric = 0;

    /// |W X_fp - Q X|^2 - |W (X_fp - X)|^2 = tr(E H E') + 2 tr(E D' W'). The subtracted term does not depend
    /// on Q, so Q = W gives 0, and better is negative. Absent without reference inputs.
    std::optional<double> asymmetric;
};

/// Wall time of the stages of a solve.
struct StageSeconds {
    double factorize = 0;  ///< ordering, damping, Cholesky and the method's own n x n matrices; 0 if reused
    double sweep = 0;      ///< target, grid fits, recurrence, codes
    double objective = 0;

    double solve() const { return factorize + sweep; }
};

struct Report {
    Status status = Status::Success;
    double damping = 0;               ///< the lambda that was used
    int damping_retries = 0;          ///< how often it had to be raised
    std::vector<Index> dead_columns;  ///< inputs that were always zero; their weights became zero
    Index tokens = 0;                 ///< tokens with a positive weight that the moments were made of
    bool asymmetric_target = false;   ///< the method minimizes Objective::asymmetric, else ::symmetric
    std::optional<Objective> round_to_nearest;  ///< before: the same grid and groups without any compensation
    std::optional<Objective> objective;         ///< after: the codes of this result
    StageSeconds seconds;
};

}  // namespace residua
