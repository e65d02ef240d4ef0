#pragma once

#include <utility>
#include <vector>

#include "residua/core/options.hpp"
#include "residua/core/report.hpp"

namespace residua::detail {

/// The objective of every output row of one slab after another, added up to the steps of a report row by row,
/// so that sums do not depend on how rows are cut into slabs.
class RefinementRecord {
  public:
    /// A slab begins with these objectives of its rows.
    void start(std::vector<RefinementStep>& steps, std::vector<double> objective) {
        objective_ = std::move(objective);
        before_ = objective_;
        finished_.assign(objective_.size(), 0);
        done_ = 0;
        add(steps, RefinementStep::Kind::Start, 0);
    }

    /// A pass has lowered the objectives by so much and changed so many codes.
    void add_pass(std::vector<RefinementStep>& steps, RefinementStep::Kind kind,
                  const std::vector<double>& lowered, Index changed) {
        for (std::size_t r = 0; r < objective_.size(); ++r) objective_[r] -= lowered[r];
        add(steps, kind, changed);
    }

    /// Passes of the slab so far.
    Index passes() const { return static_cast<Index>(done_) - 1; }

    /// A round ends. Whether rows are left to refine; finished() tells which are not.
    bool next_round(double tolerance) {
        bool open = false;
        for (std::size_t r = 0; r < objective_.size(); ++r) {
            const double lowered = before_[r] - objective_[r];
            if (lowered <= 0 || lowered < tolerance * before_[r]) finished_[r] = 1;
            open = open || finished_[r] == 0;
        }
        before_ = objective_;
        return open;
    }
    const std::vector<double>& finished() const { return finished_; }

    /// The slab ends. Its objective remains as it is in steps that only other slabs take.
    void finish(std::vector<RefinementStep>& steps) {
        while (done_ < steps.size()) add(steps, steps[done_].kind, 0);
        for (const double value : objective_) settled_ += value;
    }

  private:
    void add(std::vector<RefinementStep>& steps, RefinementStep::Kind kind, Index changed) {
        if (steps.size() == done_) steps.push_back({kind, settled_, 0});
        RefinementStep& step = steps[done_++];
        for (const double value : objective_) step.objective += value;
        step.changed_codes += changed;
    }

    std::vector<double> objective_;  // of each row
    std::vector<double> before_;     // at the start of the round
    std::vector<double> finished_;   // 1 for rows that are to be left alone
    std::size_t done_ = 0;
    double settled_ = 0;  // the objective of slabs that are done
};

}  // namespace residua::detail
