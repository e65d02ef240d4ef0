#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

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
