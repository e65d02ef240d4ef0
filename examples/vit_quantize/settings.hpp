#pragma once

#include <filesystem>
#include <optional>
#include <residua/transform/activation_quantizer.hpp>
#include <string>
#include <vector>

#include "../support/solve_settings.hpp"

// CLI11 is for the sources that read the command line: it takes long to compile.
namespace CLI {
class App;
}

/// What the command line asks for.
struct Settings {
    std::filesystem::path model = RESIDUA_EXAMPLE_DATA_DIR "/tiny-vit";
    std::filesystem::path calibration;        ///< empty: calibration.safetensors of the model
    std::filesystem::path evaluation;         ///< empty: test.safetensors of the model
    std::filesystem::path output;             ///< a safetensors file; empty: nothing is written
    residua::Index calibration_images = 256;  ///< 0: all
    residua::Index draws = 1;                 ///< of the calibration images
    std::vector<std::string> methods{"rtn", "gptq", "gptaq", "rescomp", "qep"};
    SolveSettings solve;
    int patch_bits = 8;                                       ///< of the patch embedding; 16: as it is
    std::optional<residua::ActivationQuantizer> activations;  ///< of the inputs of blocks' linear layers
    int threads = 0;                                          ///< 0: as many as the machine has
    bool json = false;
    bool allow_degraded = false;  ///< success in spite of what Degradation lists
};

/// Throws CLI::ParseError for what is no option and std::invalid_argument for values that do not fit.
Settings parse_settings(CLI::App& app, int argc, char** argv);
