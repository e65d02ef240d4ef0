#pragma once

#include <optional>
#include <residua/core/options.hpp>
#include <residua/grids/group_size.hpp>
#include <residua/grids/integer_grid.hpp>
#include <residua/methods/methods.hpp>
#include <string>
#include <vector>

/// What the example programs let the user choose of a solve.
struct SolveSettings {
    residua::IntegerGrid grid{.bits = 4, .symmetry = residua::Symmetry::Restricted};
    residua::SolverOptions options{.report_objective = true};
    std::optional<double> alpha, beta;  ///< absent: the method's default
    std::optional<bool>
        residual_stream;  ///< whether layers that write to it correct what it carries; absent: by QEP

    /// Throws std::invalid_argument for values out of range.
    void validate() const {
        grid.validate();
        options.validate();
    }

    /// Puts the number of columns in the place of grid_default, for what is written about the solve.
    void resolve_group_size() {
        options.group_size = residua::resolve_group_size<residua::IntegerGrid>(options.group_size);
    }

    /// Whether layers that write to the residual stream correct, by this method, what it carries.
    bool corrects_stream(const std::string& method) const {
        return method != "rtn" && method != "none" && residual_stream.value_or(method == "qep");
    }

    /// `method` with the coefficients that were asked for.
    template <class Method>
    Method with_coefficients(Method method) const {
        if constexpr (requires { method.alpha; }) method.alpha = alpha.value_or(method.alpha);
        if constexpr (requires { method.beta; }) method.beta = beta.value_or(method.beta);
        return method;
    }
};

/// Every method by the name that the programs give it; "rtn" is rounding to nearest.
inline std::vector<std::string> method_names() {
    return {"rtn", "gptq", "gptq+rescomp", "gptaq", "rescomp", "qep", "qronos"};
}

/// The name of a method that used to have another one.
inline std::string present_name(std::string method) { return method == "shifted" ? "qep" : method; }

/// Calls f(method) with the method of that name; f returns the same type for all.
template <class F>
auto with_method(const std::string& name, const SolveSettings& settings, F f) {
    if (name == "gptq+rescomp") return f(settings.with_coefficients(residua::GPTQResidualComp{}));
    if (name == "gptaq") return f(settings.with_coefficients(residua::GPTAQ{}));
    if (name == "rescomp") return f(settings.with_coefficients(residua::ResidualComp{}));
    if (name == "qep") return f(settings.with_coefficients(residua::QEP{}));
    if (name == "qronos") return f(settings.with_coefficients(residua::Qronos{}));
    residua::require(name == "gptq", "method is", name, "gptq, gptq+rescomp, gptaq, rescomp, qep or qronos");
    return f(settings.with_coefficients(residua::GPTQ{}));
}
