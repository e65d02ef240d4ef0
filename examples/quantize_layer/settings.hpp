#pragma once

#include <string>

#include "../support/float_format.hpp"
#include "../support/solve_settings.hpp"

// CLI11 is for the sources that read the command line: it takes long to compile.
namespace CLI {
class App;
}

/// What the command line asks for.
struct Settings {
    std::string input = RESIDUA_EXAMPLE_DATA_DIR "/layer.safetensors";
    std::string output;
    std::string format = "residua";
    std::string name = "layer";  ///< of the layer, in the output
    std::string method = "all";
    SolveSettings solve;
    std::string device = "cpu";
    int threads = 0;  ///< 0: as many as the machine has
    bool calibrate_on_all = false;
    bool json = false;
    bool allow_degraded = false;  ///< success in spite of what Degradation lists
    std::string command;          ///< the arguments, for the output's metadata

    /// Formats that fix the bits, the group size and the types of scales.
    bool is_block_format() const {
        return format.starts_with("gguf-") || float_format_named(format).has_value();
    }
};

/// Throws CLI::ParseError for what is no option and std::invalid_argument for values that do not fit.
Settings parse_settings(CLI::App& app, int argc, char** argv);
