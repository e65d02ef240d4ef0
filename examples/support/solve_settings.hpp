#pragma once

#include <optional>
#include <residua/residua.hpp>
#include <string>
#include <vector>

/// What the example programs let the user choose of a solve.
struct SolveSettings {
    residua::IntegerGrid grid{.bits = 4, .symmetry = residua::Symmetry::Restricted};
    residua::SolverOptions options;
    std::optional<double> alpha, beta;  ///< absent: the method's default

    /// Throws std::invalid_argument for values out of range.
    void validate() const {
        grid.validate();
        options.validate();
    }

    /// `rule` with the coefficients that were asked for.
    template <class Rule>
    Rule with_coefficients(Rule rule) const {
        if constexpr (requires { rule.alpha; }) rule.alpha = alpha.value_or(rule.alpha);
        if constexpr (requires { rule.beta; }) rule.beta = beta.value_or(rule.beta);
        return rule;
    }
};

/// Every method by the name that the programs give it. "rtn", rounding, is none of the rules.
inline std::vector<std::string> method_names() {
    return {"rtn", "gptq", "gptq+rescomp", "gptaq", "rescomp", "shifted"};
}

/// Calls f(rule) with the rule of that name; f returns the same type for all.
template <class F>
auto with_rule(const std::string& method, const SolveSettings& settings, F f) {
    if (method == "gptq+rescomp") return f(settings.with_coefficients(residua::GPTQResidualComp{}));
    if (method == "gptaq") return f(settings.with_coefficients(residua::GPTAQ{}));
    if (method == "rescomp") return f(settings.with_coefficients(residua::ResidualComp{}));
    if (method == "shifted") return f(settings.with_coefficients(residua::ShiftedTarget{}));
    residua::require(method == "gptq", "method is", method, "gptq, gptq+rescomp, gptaq, rescomp or shifted");
    return f(settings.with_coefficients(residua::GPTQ{}));
}
