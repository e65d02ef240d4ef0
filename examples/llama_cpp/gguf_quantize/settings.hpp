#pragma once

#include <ggml.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "../../support/output_file.hpp"
#include "../../support/solve_settings.hpp"

// CLI11 is for the sources that read the command line: it takes long to compile.
namespace CLI {
class App;
}

/// What the command line asks for.
struct Settings {
    std::filesystem::path model, calibration, output;
    std::filesystem::path report;  ///< empty: none

    std::string type;            ///< a mix of llama.cpp by its name
    std::filesystem::path like;  ///< or the file whose types are taken
    std::vector<std::pair<std::string, ggml_type>>
        tensor_types;  ///< by regular expressions of names, before both

    std::string method = "gptq";
    SolveSettings solve;
    bool sequential = false;
    static constexpr residua::Index shortest_window = 16;
    residua::Index window = 512;
    residua::Index windows = 0;  ///< of the text; 0: all
    double memory = 0;           ///< GiB for moments and solves; 0: most of what is there
    int threads = 0;             ///< 0: as many as the machine has

    Existing existing = Existing::Refuse;
    bool allow_requantize = false;  ///< of tensors that are quantized already
    bool allow_unseen = false;      ///< experts without tokens are rounded
    bool allow_degraded = false;    ///< success in spite of what Degradation lists

    /// The options that the result depends on, by name, as texts; not those whose files' contents count.
    nlohmann::json choices;
};

/// Throws CLI::ParseError for what is no option and std::invalid_argument for values that do not fit.
Settings parse_settings(CLI::App& app, int argc, char** argv);
