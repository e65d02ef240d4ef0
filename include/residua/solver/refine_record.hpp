#pragma once

#include <utility>
#include <vector>

#include "residua/core/options.hpp"
#include "residua/core/report.hpp"

namespace residua::detail {

/// The objectives, damped and undamped, of every output row of one slab after another, added up to the steps
/// of a report row by row, so that sums do not depend on how rows are cut into slabs.
class RefinementRecord {
  public:
    /// Of each row of a slab: tr(e H e') with H as it is damped, and what damping adds to it, lambda |e|^2.
    struct Rows {
        std::vector<double> objective;
        std::vector<double> damping;
        std::vector<double> changed = {};  // codes, by a pass

        double undamped(std::size_t r) const { return objective[r] - damping[r]; }
    };

    /// A slab begins with these objectives of its rows.
    void start(std::vector<RefinementStep>& steps, Rows rows) {
        before_ = std::move(rows);
        undamped_at_start_.clear();
        for (std::size_t r = 0; r < before_.objective.size(); ++r)
            undamped_at_start_.push_back(before_.undamped(r));
        passes_.clear();
        finished_.assign(before_.objective.size(), 0);
        done_ = 0;
        add(steps, RefinementStep::Kind::Start, before_);
    }

    /// A pass has lowered the objectives by so much, and changed so many codes.
    void add_pass(std::vector<RefinementStep>& steps, RefinementStep::Kind kind,
                  const std::vector<double>& lowered, std::vector<double> damping,
                  std::vector<double> changed) {
        Rows rows{passes_.empty() ? before_.objective : passes_.back().objective, std::move(damping),
                  std::move(changed)};
        for (std::size_t r = 0; r < lowered.size(); ++r) {
            rows.objective[r] -= lowered[r];
            if (finished_[r] != 0) rows.damping[r] = before_.damping[r];
        }
        add(steps, kind, rows);
        passes_.push_back(std::move(rows));
    }

    /// Passes of the slab so far.
    Index passes() const { return static_cast<Index>(done_) - 1; }

    /// A round ends. The rows whose undamped objective is now above that of the start, which are to get back the
    /// codes and scales that they began the round with; the steps are those of rows that never left them.
    std::vector<std::size_t> end_round(std::vector<RefinementStep>& steps, double tolerance) {
        std::vector<std::size_t> risen;
        Rows& now = passes_.back();
        for (std::size_t r = 0; r < finished_.size(); ++r) {
            if (finished_[r] != 0) continue;
            const double lowered = before_.objective[r] - now.objective[r];
            if (lowered <= 0 || lowered < tolerance * before_.objective[r]) finished_[r] = 1;
            if (!(now.undamped(r) > undamped_at_start_[r])) continue;
            finished_[r] = 1;
            risen.push_back(r);
            for (std::size_t p = 0; p < passes_.size(); ++p) {
                RefinementStep& step = steps[done_ - passes_.size() + p];
                step.objective += before_.objective[r] - passes_[p].objective[r];
                step.undamped += before_.undamped(r) - passes_[p].undamped(r);
                step.changed_codes -= static_cast<Index>(passes_[p].changed[r]);
            }
            now.objective[r] = before_.objective[r];
            now.damping[r] = before_.damping[r];
        }
        before_ = std::move(now);
        before_.changed.clear();
        passes_.clear();
        return risen;
    }

    /// 1 for rows that are to be left alone.
    const std::vector<double>& finished() const { return finished_; }
    bool is_open() const {
        for (const double f : finished_)
            if (f == 0) return true;
        return false;
    }

    /// The slab ends. Its objective remains as it is in steps that only other slabs take.
    void finish(std::vector<RefinementStep>& steps) {
        while (done_ < steps.size()) add(steps, steps[done_].kind, before_);
        for (std::size_t r = 0; r < finished_.size(); ++r) {
            settled_ += before_.objective[r];
            settled_undamped_ += before_.undamped(r);
        }
    }

  private:
    void add(std::vector<RefinementStep>& steps, RefinementStep::Kind kind, const Rows& rows) {
        if (steps.size() == done_) steps.push_back({kind, settled_, settled_undamped_, 0});
        RefinementStep& step = steps[done_++];
        for (std::size_t r = 0; r < rows.objective.size(); ++r) {
            step.objective += rows.objective[r];
            step.undamped += rows.undamped(r);
        }
        for (const double changed : rows.changed) step.changed_codes += static_cast<Index>(changed);
    }

    Rows before_;               // at the start of the round
    std::vector<Rows> passes_;  // of the round
    std::vector<double> undamped_at_start_;
    std::vector<double> finished_;
    std::size_t done_ = 0;
    double settled_ = 0;  // objectives of slabs that are done
    double settled_undamped_ = 0;
};

}  // namespace residua::detail
