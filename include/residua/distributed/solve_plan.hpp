#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "residua/core/options.hpp"
#include "residua/distributed/share.hpp"
#include "residua/methods/method.hpp"

namespace residua {

/// Layers that read the same inputs (q, k and v; gate and up), and thus share H, D and their factorization.
struct GroupShape {
    Index in_features = 0;
    std::vector<Index> out_features = {};  ///< of each layer

    Index rows() const { return std::accumulate(out_features.begin(), out_features.end(), Index(0)); }
};

/// Operations of a solve, docs/method.md: what is done once for a group, some n^3, and what is done for each
/// output row, some n^2.
struct SolveCost {
    Residuals residuals = Residuals::None;
    Index passes = 0;        ///< over all columns beside the recurrence
    Index rows_at_once = 1;  ///< fewer rows of a layer take as long: what keeps all of a GPU busy

    static SolveCost of(Residuals residuals, const SolverOptions& options = {}, Index rows_at_once = 1) {
        const Refinement& r = options.refinement;
        return {residuals,
                (r.rounds > 0 ? 1 + Index(r.rounds) * r.sweeps_per_round : 0) + options.report_objective,
                rows_at_once};
    }

    /// Whether all of M is worth its n^3 operations.
    bool takes_all_residuals(const GroupShape& g) const {
        return residuals == Residuals::OfAllColumns && g.rows() >= g.in_features;
    }

    double of_factor(const GroupShape& g) const {
        const auto n = double(g.in_features);
        const double m = residuals == Residuals::OfColumnsBefore ? 1.0 / 3 : takes_all_residuals(g) ? 1 : 0;
        return (1.0 / 3 + m) * n * n * n;
    }

    /// Of all rows, by the rank that owns the group, or of one rank's part where `ranks` share them.
    double of_rows(const GroupShape& g, int ranks = 1) const {
        Index rows = std::max((g.rows() + ranks - 1) / ranks, rows_at_once);
        if (ranks == 1) {
            rows = 0;
            for (const Index m : g.out_features) rows += std::max(m, rows_at_once);
        }
        const auto n = double(g.in_features);
        const double sums = residuals == Residuals::None              ? 0
                            : residuals == Residuals::OfColumnsBefore ? 1
                            : takes_all_residuals(g)                  ? 2
                                                                      : 3;
        return (1 + sums + double(passes)) * double(rows) * n * n;
    }
};

/// Rows [rows.first, rows.end()) of a layer, solved by one rank.
struct RowTask {
    int rank = 0;
    std::size_t group = 0;
    std::size_t layer = 0;
    Share rows = {};
};

/// Who solves what. A group is solved by its owner, or, if it is split, factored by its owner and solved row by
/// row by all ranks.
///
/// Groups go to the least busy rank, the most expensive ones first. While the busiest rank has more than
/// `tolerance` times the mean, its most expensive group is split; of the plans on the way, the one is taken whose
/// busiest rank does least. A single Cholesky factorization is never divided, nor is it worth while to divide rows
/// further than SolveCost::rows_at_once: there the share is larger.
class SolvePlan {
  public:
    /// `granule`: rows of a split layer are cut at multiples of it.
    SolvePlan(const std::vector<GroupShape>& groups, const SolveCost& cost, int ranks, Index granule,
              double tolerance = 1.2)
        : owners_(groups.size(), 0), is_split_(groups.size(), false) {
        require(ranks >= 1, "SolvePlan: ranks is", ranks, "at least 1");
        require(granule >= 1, "SolvePlan: granule is", granule, "at least 1");
        assign(groups, cost, ranks);
        std::vector<bool> best = is_split_;
        double least = largest_load();
        while (largest_share() > tolerance && split_one(groups, cost)) {
            assign(groups, cost, ranks);
            if (largest_load() >= least) continue;
            least = largest_load();
            best = is_split_;
        }
        is_split_ = std::move(best);
        assign(groups, cost, ranks);
        for (std::size_t g = 0; g < groups.size(); ++g) add_tasks(groups[g], g, ranks, granule);
    }

    int owner(std::size_t group) const { return owners_[group]; }
    bool is_split(std::size_t group) const { return is_split_[group]; }

    /// In the order of groups, layers and rows.
    const std::vector<RowTask>& tasks() const { return tasks_; }

    /// Operations of the busiest rank over the mean of all.
    double largest_share() const {
        const double sum = std::accumulate(loads_.begin(), loads_.end(), 0.0);
        return sum > 0 ? largest_load() / (sum / double(loads_.size())) : 1;
    }

  private:
    double largest_load() const { return *std::max_element(loads_.begin(), loads_.end()); }

    /// The rows of split groups burden all ranks alike, behind a point that all must have reached.
    void assign(const std::vector<GroupShape>& groups, const SolveCost& cost, int ranks) {
        loads_.assign(std::size_t(ranks), 0);
        std::vector<double> own;
        double shared = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            own.push_back(cost.of_factor(groups[g]) + (is_split_[g] ? 0 : cost.of_rows(groups[g])));
            if (is_split_[g]) shared += cost.of_rows(groups[g], ranks);
        }
        std::vector<std::size_t> order(groups.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return own[a] > own[b]; });
        for (const std::size_t g : order) {
            const auto least = std::min_element(loads_.begin(), loads_.end());
            owners_[g] = int(least - loads_.begin());
            *least += own[g];
        }
        for (double& load : loads_) load += shared;
    }

    bool split_one(const std::vector<GroupShape>& groups, const SolveCost& cost) {
        const int busiest = int(std::max_element(loads_.begin(), loads_.end()) - loads_.begin());
        double most = 0;
        std::size_t chosen = groups.size();
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const double rows = cost.of_rows(groups[g]);
            if (owners_[g] != busiest || is_split_[g] || rows <= most) continue;
            most = rows;
            chosen = g;
        }
        if (chosen == groups.size()) return false;
        is_split_[chosen] = true;
        return true;
    }

    /// A split group's granules, in the order of layers and rows, in runs as equal as can be.
    void add_tasks(const GroupShape& group, std::size_t g, int ranks, Index granule) {
        Index granules = 0;
        for (const Index rows : group.out_features) granules += (rows + granule - 1) / granule;
        Index before = 0;
        for (std::size_t layer = 0; layer < group.out_features.size(); ++layer) {
            const Index rows = group.out_features[layer];
            if (!is_split_[g]) {
                tasks_.push_back({owners_[g], g, layer, {0, rows}});
                continue;
            }
            const Index count = (rows + granule - 1) / granule;
            for (int r = 0; r < ranks; ++r) {
                const Share run = share_of(granules, r, ranks);
                const Index first = std::clamp(run.first - before, Index(0), count) * granule;
                const Index end = std::min(std::clamp(run.end() - before, Index(0), count) * granule, rows);
                if (end > first) tasks_.push_back({r, g, layer, {first, end - first}});
            }
            before += count;
        }
    }

    std::vector<int> owners_;
    std::vector<bool> is_split_;
    std::vector<double> loads_;
    std::vector<RowTask> tasks_;
};

}  // namespace residua
