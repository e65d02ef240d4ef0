#pragma once

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "residua/core/report.hpp"

namespace residua::detail {

/// Adds the report on other rows of a layer: sums of what rows add to, and the first failure.
inline void add_report(Report& report, const Report& rows) {
    if (report.status == Status::Success) report.status = rows.status;
    if (!report.rounded_because) report.rounded_because = rows.rounded_because;
    const auto add = [](std::optional<Objective>& sum, const std::optional<Objective>& part) {
        if (!sum || !part) return sum.reset();
        sum->symmetric += part->symmetric;
        if (sum->asymmetric && part->asymmetric) *sum->asymmetric += *part->asymmetric;
    };
    add(report.round_to_nearest, rows.round_to_nearest);
    add(report.objective, rows.objective);
    // Rows that were done earlier remain as they are in the steps that only the others take.
    auto& steps = report.refinement;
    const auto& more = rows.refinement;
    const RefinementStep settled = steps.empty() ? RefinementStep() : steps.back();
    for (std::size_t i = steps.size(); i < more.size(); ++i)
        steps.push_back({more[i].kind, settled.objective, settled.undamped, 0});
    for (std::size_t i = 0; i < steps.size() && !more.empty(); ++i) {
        const RefinementStep& step = more[std::min(i, more.size() - 1)];
        steps[i].objective += step.objective;
        steps[i].undamped += step.undamped;
        if (i < more.size()) steps[i].changed_codes += step.changed_codes;
    }
    report.seconds.factorize += rows.seconds.factorize;
    report.seconds.sweep += rows.seconds.sweep;
    report.seconds.refine += rows.seconds.refine;
    report.seconds.objective += rows.seconds.objective;
}

/// A report as numbers, which a communicator can send, and back.
class ReportNumbers {
  public:
    explicit ReportNumbers(std::vector<double> numbers = {}) : numbers_(std::move(numbers)) {}

    static std::vector<double> of(Report report) {
        ReportNumbers numbers;
        visit(numbers, report, [](auto& list, auto& value) { list.numbers_.push_back(double(value)); });
        return std::move(numbers.numbers_);
    }

    Report report() && {
        Report report;
        visit(*this, report, [](auto& list, auto& value) {
            value = static_cast<std::remove_reference_t<decltype(value)>>(list.numbers_[list.at_++]);
        });
        return report;
    }

  private:
    template <class Each>
    static void visit(ReportNumbers& list, Report& r, Each each) {
        each(list, r.status);
        visit_optional(list, r.rounded_because, each, [&](Status& why) { each(list, why); });
        each(list, r.damping);
        each(list, r.damping_retries);
        each(list, r.tokens);
        each(list, r.asymmetric_target);
        visit_list(list, r.dead_columns, each, [&](Index& column) { each(list, column); });
        visit_list(list, r.refinement, each, [&](RefinementStep& step) {
            each(list, step.kind);
            each(list, step.objective);
            each(list, step.undamped);
            each(list, step.changed_codes);
        });
        const auto objective = [&](Objective& o) {
            each(list, o.symmetric);
            visit_optional(list, o.asymmetric, each, [&](double& value) { each(list, value); });
        };
        visit_optional(list, r.round_to_nearest, each, objective);
        visit_optional(list, r.objective, each, objective);
        each(list, r.seconds.factorize);
        each(list, r.seconds.sweep);
        each(list, r.seconds.refine);
        each(list, r.seconds.objective);
    }

    template <class U, class Each, class Visit>
    static void visit_list(ReportNumbers& list, std::vector<U>& values, Each each, Visit visit) {
        std::size_t size = values.size();
        each(list, size);
        values.resize(size);
        for (U& value : values) visit(value);
    }

    template <class U, class Each, class Visit>
    static void visit_optional(ReportNumbers& list, std::optional<U>& value, Each each, Visit visit) {
        bool is_there = value.has_value();
        each(list, is_there);
        if (is_there && !value) value.emplace();
        if (is_there) visit(*value);
    }

    std::vector<double> numbers_;
    std::size_t at_ = 0;
};

}  // namespace residua::detail
