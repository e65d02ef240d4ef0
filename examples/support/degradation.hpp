#pragma once

#include <cmath>
#include <residua/core/report.hpp>
#include <sstream>
#include <string>

/// What a successful solve had to put up with, in words for its user; "" where it was nothing.
struct Degradation {
    residua::Index dead_inputs = 0;    ///< whose weights became zero
    double raised_damping = 0;         ///< what it was raised to; 0: not raised
    std::string rounded_because = {};  ///< the status of the method, where rounding took its place
    residua::Index expert_tokens =
        -1;                  ///< of an expert that fewer tokens reached than it has inputs; 0: rounded
    double objective = NAN;  ///< what the method minimizes,
    double rounding = NAN;   ///< and the same of rounding to nearest; NaN where they are not known

    static Degradation of(const residua::Report& report) {
        Degradation d;
        if (report.rounded_because) {
            d.rounded_because = to_string(*report.rounded_because);
            return d;
        }
        d.dead_inputs = residua::Index(report.dead_columns.size());
        if (report.damping_retries > 0) d.raised_damping = report.damping;
        d.objective = report.achieved().value_or(NAN);
        if (const auto& rounded = report.round_to_nearest)
            d.rounding = report.asymmetric_target ? rounded->asymmetric.value_or(NAN) : rounded->symmetric;
        return d;
    }

    bool is_worse_than_rounding() const { return objective > rounding; }

    std::string text() const {
        std::ostringstream words;
        const auto begin = [&]() -> std::ostream& { return words << (words.tellp() > 0 ? ", " : ""); };
        if (!rounded_because.empty()) begin() << "rounded to nearest because of " << rounded_because;
        if (expert_tokens == 0)
            begin() << "no calibration token reached this expert, its weights were rounded to nearest";
        if (expert_tokens > 0)
            begin() << "only " << expert_tokens
                    << " calibration tokens reached this expert, fewer than it has inputs";
        if (dead_inputs > 0) begin() << dead_inputs << " inputs are always zero, their weights became zero";
        if (raised_damping > 0) begin() << "damping was raised to " << raised_damping;
        if (is_worse_than_rounding())
            begin() << "worse than rounding to nearest: objective " << objective << ", not " << rounding;
        return words.str();
    }
};
