#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <residua/core/error.hpp>
#include <set>
#include <string>

/// Of numbers: 0 and more.
inline const CLI::Validator not_negative(
    [](const std::string& text) {
        double number = 0;
        const bool fits = CLI::detail::lexical_cast(text, number) && number >= 0;
        return fits ? std::string() : "'" + text + "', expected a number of at least 0";
    },
    "NONNEGATIVE", "not_negative");

/// Throws std::invalid_argument for an option with an empty value, as `--output "$UNSET"` has: it would be taken for one
/// that was not given.
inline void refuse_empty(const CLI::App& app) {
    for (const CLI::Option* option : app.get_options())
        for (const std::string& value : option->results())
            residua::require(!value.empty(), option->get_name() + " is", "''", "a value");
}

/// All options and their values as texts, but those listed in `elsewhere`: the ones that change no byte of the output and
/// those that name files. An option is left out because it is listed, not taken in because someone thought of it.
inline nlohmann::json choices_of(const CLI::App& app, const std::set<std::string>& elsewhere) {
    nlohmann::json choices = nlohmann::json::object();
    for (const CLI::Option* option : app.get_options()) {
        const std::string& name = option->get_single_name();
        if (elsewhere.contains(name)) continue;
        choices["--" + name] =
            option->count() > 0 ? CLI::detail::join(option->results()) : option->get_default_str();
    }
    return choices;
}
