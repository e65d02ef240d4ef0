#pragma once

#include <functional>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

namespace residua {

/// The order in which columns are quantized. Codes are always returned in the original order.
enum class Ordering {
    Natural,     ///< as stored
    Activation,  ///< descending diag H; without static groups the group index of neighbours differs
    GroupAware,  ///< groups by descending mean of diag H, columns within each group by descending diag H:
                 ///< the stored group index stays monotonic
};

/// The current weight v_i that the residuals of GPTAQ and ResComp see.
enum class ResidualView {
    Compensated,  ///< c_i, as in the papers' equations; independent of the block size
    Quantized,    ///< c_i within a block, q_i for later blocks: the published GPTAQ, and ResComp at 2 bits
    Clamped,      ///< c_i within a block, then c_i limited to the range of the block's last group: the
                  ///< published ResComp at 3 bits and above
};

/// The weights that a group's grid is fitted to.
enum class GroupScales {
    Current,  ///< compensated for every column before the group, dead columns cleared
    Stale,    ///< compensated for earlier blocks only; per-channel grids before dead columns are cleared, as
              ///< in the published code
};

/// Where the published Python code departs from its papers' equations, and results come to depend on the
/// block size. The default departs nowhere.
struct PublishedBehaviour {
    ResidualView view = ResidualView::Compensated;
    GroupScales scales = GroupScales::Current;
};

/// H + lambda * mean(diag H) * I, dead columns counting as zeros. When H is not positive definite, lambda is
/// raised and the factorization is tried again; the report tells which lambda was used.
struct Damping {
    double initial = 0.01;
    double growth = 10;        ///< factor from one try to the next
    double retry_from = 1e-4;  ///< least lambda of a retry
    int max_retries = 4;

    void validate() const {
        require(initial >= 0 && initial <= 1e6, "Damping: initial is", initial, "a number in [0, 1e6]");
        require(growth > 1 && growth <= 1e6, "Damping: growth is", growth, "a number in (1, 1e6]");
        require(retry_from > 0 && retry_from <= 1e6, "Damping: retry_from is", retry_from,
                "a number in (0, 1e6]");
        require(max_retries >= 0 && max_retries <= 100, "Damping: max_retries is", max_retries, "0 to 100");
    }

    [[nodiscard]] double next(double lambda) const {
        return lambda * growth > retry_from ? lambda * growth : retry_from;
    }
    friend bool operator==(const Damping&, const Damping&) = default;
};

/// A descent on the damped objective tr(E H E'), E = W* - Q, that starts from the codes of a solve, see
/// solver/refine.hpp. A sweep takes about as long as a GPTQ solve without its factorization.
struct Refinement {
    int rounds = 0;            ///< 0: none
    int sweeps_per_round = 2;  ///< over all columns, there and back
    bool refit_scales = true;  ///< in every sweep, where the grid allows, see RefittableGrid and TwoLevelGrid
    double tolerance = 1e-4;  ///< an output row is left alone after a round that lowers its objective by less
                              ///< than this part of it; 0: after one that does not lower it at all

    void validate() const {
        require(rounds >= 0 && rounds <= 1000, "Refinement: rounds is", rounds, "0 to 1000");
        require(sweeps_per_round >= 1 && sweeps_per_round <= 1000, "Refinement: sweeps_per_round is",
                sweeps_per_round, "1 to 1000");
        require(tolerance >= 0 && tolerance < 1, "Refinement: tolerance is", tolerance, "a number in [0, 1)");
    }
};

/// How far a solve has come: `done` of `total` columns, counted once for every slab of rows and once more for
/// every sweep of its refinement.
struct Progress {
    Index done = 0;
    Index total = 0;
};

/// What a solve gives where it cannot give codes of the method, see Status.
enum class OnFailure {
    Report,          ///< the status, and no codes
    RoundToNearest,  ///< the weights rounded to nearest, and the status in Report::rounded_because; not where the
                     ///< solve was cancelled or the weights themselves cannot be rounded
};

struct SolverOptions {
    static constexpr Index per_channel = -1;  ///< one scale for each output row
    static constexpr Index grid_default = 0;  ///< the grid's own group size, or 128 where it has none

    Index group_size = grid_default;  ///< input columns that share a scale; or one of the constants above
    Index block_size = 128;  ///< columns of one sweep; changes speed alone unless `published` says otherwise
    Damping damping = {};
    Ordering ordering = Ordering::Natural;
    bool static_groups = false;  ///< groups of the original order, fitted before the first column is swept
    PublishedBehaviour published = {};
    Refinement refinement = {};    ///< of the codes, after the last column
    double max_dead_inputs = 0.1;  ///< part of the columns that may be dead, see Report::dead_columns; with
                                   ///< more, and unless this is 1 with all, Status::DeadInputs
    OnFailure on_failure = OnFailure::Report;

    /// alpha_h: part of the residual stream's deviation that the layer corrects, where the moments have it
    /// (Moments::accumulate with a ResidualStream).
    double stream_alpha = 0.5;
    bool report_objective = false;  ///< costs about as much as a GPTQ solve without its factorization

    /// Called on the calling thread after every block of columns; `false` cancels the solve, whose result
    /// then has Status::Cancelled and no codes.
    std::function<bool(const Progress&)> progress = {};

    void validate() const {
        require(group_size >= 1 || group_size == per_channel || group_size == grid_default,
                "SolverOptions: group_size is", group_size,
                "at least 1, 0 for the grid's own, or -1 for one scale per output channel");
        require(block_size >= 1, "SolverOptions: block_size is", block_size, "at least 1");
        require(stream_alpha >= 0 && stream_alpha <= 1, "SolverOptions: stream_alpha is", stream_alpha,
                "in [0, 1]");
        require(max_dead_inputs >= 0 && max_dead_inputs <= 1, "SolverOptions: max_dead_inputs is",
                max_dead_inputs, "a part of the columns, in [0, 1]");
        damping.validate();
        refinement.validate();
    }
};

}  // namespace residua
