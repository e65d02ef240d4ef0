#pragma once

#include <CLI/CLI.hpp>
#include <iostream>
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

/// Reads the command line. Throws CLI::ParseError for what is no option, and std::invalid_argument for an option with an
/// empty value, as `--output "$UNSET"` has: it would be taken for one that was not given.
inline void parse_arguments(CLI::App& app, int argc, char** argv) {
    app.parse(argc, argv);
    for (const CLI::Option* option : app.get_options())
        for (const std::string& value : option->results())
            residua::require(!value.empty(), option->get_name() + " is", "''", "a value");
}

/// The exit code of a program whose work is run(), its command line included: what that returns, or 2 with the error on
/// stderr where it throws.
template <class Run>
int exit_code_of(CLI::App& app, Run run) {
    try {
        return run();
    } catch (const CLI::ParseError& error) {
        return app.exit(error);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 2;
    }
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
