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
    DeadInputs,           ///< more inputs were always zero than SolverOptions::max_dead_inputs allows
    Overflow,             ///< compensated weights left the range of the element type
};

[[nodiscard]] constexpr std::string_view to_string(Status status) {
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
        case Status::DeadInputs:
            return "dead inputs";
        case Status::Overflow:
            return "overflow";
    }
    return "unknown";
}

/// What large products of matrices, and factorizations, are computed in.
enum class Arithmetic {
    Element,  ///< the type of the moments, float or double
    Split,    ///< floats as sums of two float16 parts, on tensor cores: nearly as accurate as float
    TF32,     ///< floats rounded to 11 significant bits, on tensor cores
};

[[nodiscard]] constexpr std::string_view to_string(Arithmetic arithmetic) {
    switch (arithmetic) {
        case Arithmetic::Element:
            return "element type";
        case Arithmetic::Split:
            return "split";
        case Arithmetic::TF32:
            return "tf32";
    }
    return "unknown";
}

/// Squared output errors of quantized weights Q on the calibration tokens, E = W - Q, from the moments alone.
struct Objective {
    /// |E X|^2 = tr(E H E').
    double symmetric = 0;

    /// |W X_fp - Q X|^2 - |W (X_fp - X)|^2 = tr(E H E') + 2 tr(E D' W'). The subtracted term does not depend
    /// on Q, so Q = W gives 0, and better is negative.
    ///
    /// Moments with the residual stream h take it with them, (H_fp + W X_fp) - (H_s + Q X) for W X_fp - Q X: the
    /// term tr(2 E D_h') more. What of both the moments lack counts as without deviation; absent without
    /// either.
    std::optional<double> asymmetric;
};

/// What one pass of the refinement over all columns did.
struct RefinementStep {
    enum class Kind {
        Start,          ///< nothing: the objective of the solve's own codes
        Sweep,          ///< codes, one column after the other
        RefitAndSweep,  ///< the scale of a group, then its codes, one group after the other
    };
    Kind kind = Kind::Start;
    double objective = 0;  ///< tr(E H E') afterwards, E = W* - Q, H damped as in the solve: never rises
    double undamped = 0;   ///< the same with H as it is, but for dead columns: no round ends above the start
    Index changed_codes = 0;  ///< codes that differ from those before the pass
};

/// Wall time of the stages of a solve.
struct StageSeconds {
    double factorize = 0;  ///< ordering, damping, Cholesky and the method's own n x n matrices; 0 if reused
    double sweep = 0;      ///< target, grid fits, recurrence, codes
    double refine = 0;     ///< SolverOptions::refinement
    double objective = 0;

    [[nodiscard]] double solve() const { return factorize + sweep + refine; }
};

struct Report {
    Status status = Status::Success;

    /// Why the codes are those of rounding to nearest and not of the method: what `status` would be without
    /// OnFailure::RoundToNearest. Absent where the method succeeded, or where there are no codes.
    std::optional<Status> rounded_because;

    double damping = 0;       ///< the lambda that was used
    int damping_retries = 0;  ///< how often it had to be raised

    /// Inputs that were always zero, or whose squares vanish in the element type; their weights became zero.
    std::vector<Index> dead_columns;

    Index tokens = 0;                ///< tokens with a positive weight that the moments were made of
    bool asymmetric_target = false;  ///< the solve minimizes Objective::asymmetric, else ::symmetric
    Arithmetic products = Arithmetic::Element;       ///< of the largest ones, where the backend has a choice
    Arithmetic factorization = Arithmetic::Element;  ///< of H; Element where another one failed
    std::optional<Objective> round_to_nearest;  ///< before: the same grid and groups without any compensation
    std::optional<Objective> objective;         ///< after: the codes of this result
    std::vector<RefinementStep> refinement;     ///< step by step, from Start; empty without rounds
    StageSeconds seconds;

    /// What the method minimizes, as reached by these codes: Objective::asymmetric or ::symmetric. Absent
    /// without SolverOptions::report_objective.
    std::optional<double> achieved() const {
        if (!objective) return {};
        return asymmetric_target ? objective->asymmetric : objective->symmetric;
    }
};

}  // namespace residua
