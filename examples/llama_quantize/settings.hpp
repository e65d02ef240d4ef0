#pragma once

#include <filesystem>
#include <optional>
#include <residua/io/formats/gptq_config.hpp>
#include <residua/io/gguf/tensor.hpp>
#include <string>
#include <vector>

#include "../llama/activations.hpp"
#include "../support/float_format.hpp"
#include "../support/output_file.hpp"
#include "../support/solve_settings.hpp"
#include "ranks.hpp"

// CLI11 is for the sources that read the command line: it takes long to compile.
namespace CLI {
class App;
}

/// What the command line asks for.
struct Settings {
    std::filesystem::path model = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";
    std::filesystem::path calibration;  ///< empty: calibration.txt of the model
    std::filesystem::path evaluation;   ///< empty: eval.txt of the model
    std::filesystem::path output;       ///< a folder, or a GGUF file; empty: nothing is written
    std::filesystem::path plot;
    residua::Index window = 512;
    residua::Index calibration_windows = 0;  ///< 0: all
    residua::Index evaluation_windows = 0;
    std::vector<std::string> methods{"gptq", "gptaq", "rescomp", "qep"};
    SolveSettings solve;
    bool final_norm = false;
    std::string rotation = "none";
    std::uint64_t rotation_seed = 0;
    residua::Index rotation_steps = 100;
    bool online_hadamard = false;
    llama::ActivationSettings activations;
    residua::io::GPTQVersion format = residua::io::GPTQVersion::V2;
    bool is_compressed_tensors = false;           ///< pack-quantized in place of GPTQ
    std::optional<FloatFormat> floats;            ///< in place of integers
    std::optional<residua::io::GGMLType> blocks;  ///< of a GGUF file in place of a checkpoint
    std::string device = "cpu";
    int threads = 0;  ///< 0: as many as the machine has
    Cooperation cooperation;
    bool baseline = true;                  ///< measure the model as it is, too
    Existing existing = Existing::Refuse;  ///< what --output may hold
    bool json = false;
    bool allow_degraded = false;  ///< success in spite of what Degradation lists

    /// The options that the result depends on, by name, as texts; not those whose files' contents count.
    nlohmann::json choices;

    bool is_onto_integers() const { return !blocks && !floats; }

    bool rotation_is_file() const {
        return rotation != "none" && rotation != "hadamard" && rotation != "learned";
    }
};

/// Throws CLI::ParseError for what is no option and std::invalid_argument for values that do not fit.
Settings parse_settings(CLI::App& app, int argc, char** argv);
