#include "settings.hpp"

#include "../support/solver_arguments.hpp"

namespace {

using namespace residua;

/// Options of one activation quantizer; 16 bits: none.
struct ActivationArguments {
    int bits = 16;
    ActivationQuantizer quantizer{.clip_ratio = 0.9};

    std::optional<ActivationQuantizer> get(const char* option) {
        require(bits == 16 || (bits >= 2 && bits <= 8), std::string(option) + " is", bits, "2 to 8, or 16");
        if (bits == 16) return {};
        quantizer.bits = bits;
        quantizer.validate();
        return quantizer;
    }
};

}  // namespace

Settings parse_settings(CLI::App& app, int argc, char** argv) {
    Settings s;
    std::vector<std::string> known = method_names();
    known.push_back("none");
    app.add_option("--model", s.model, "folder with config.json and safetensors files")
        ->capture_default_str();
    app.add_option(
        "--calibration", s.calibration,
        "text to calibrate on: bytes for a byte-level model, else .safetensors with I32 `tokens` or "
        "one window of token ids a line (default: calibration.txt of the model)");
    app.add_option("--eval", s.evaluation, "text to measure perplexity on (default: eval.txt of the model)");
    app.add_option("--window", s.window, "tokens of a window")->capture_default_str();
    app.add_option("--calibration-windows", s.calibration_windows, "at most so many; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--eval-windows", s.evaluation_windows, "at most so many; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--methods,--method", s.methods,
                   "what to quantize with, separated by commas; none: evaluate")
        ->delimiter(',')
        ->transform(present_name)
        ->check(CLI::IsMember(known))
        ->capture_default_str();
    const SolverArguments solver(app, s.solve);
    app.add_option("--rotate", s.rotation, "none, hadamard (QuaRot), or a safetensors file with R1 and R2")
        ->capture_default_str();
    app.add_option("--rotation-seed", s.rotation_seed, "of the random signs")->capture_default_str();
    app.add_flag("!--no-online-hadamard", s.online_hadamard,
                 "rotate only what can be fused, so that every runtime can run the result");
    ActivationArguments inputs, cache;
    app.add_option("--activation-bits", inputs.bits, "bits of the linear layers' inputs; 16: as they are")
        ->capture_default_str();
    app.add_option("--activation-group-size", inputs.quantizer.group_size,
                   "features that share a scale; -1: all")
        ->capture_default_str();
    bool symmetric = false;
    app.add_flag("--activation-symmetric", symmetric, "zero in the middle of the range");
    app.add_option("--activation-clip", inputs.quantizer.clip_ratio, "part of the range that is covered")
        ->capture_default_str();
    app.add_option("--kv-bits", cache.bits, "bits of the key and value cache; 16: as it is")
        ->capture_default_str();
    app.add_option("--output", s.output,
                   "folder for the quantized model (with several methods: one each in it)");
    add_choice<io::GPTQVersion>(app, "--format", s.format,
                                {{"gptq-v1", io::GPTQVersion::V1}, {"gptq-v2", io::GPTQVersion::V2}},
                                "of the output");
    app.add_flag("--resume", s.resume, "go on with the blocks that --output holds");
    app.add_option("--plot", s.plot, "SVG file for the output error of every layer");
    app.add_flag("!--no-baseline", s.baseline, "do not measure the model as it is");
    app.add_flag("--json", s.json, "print the table as JSON");
    app.add_option("--device", s.device, "where to accumulate and solve")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->capture_default_str();
    app.add_option("--threads", s.threads, "threads; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.parse(argc, argv);

    if (s.calibration.empty()) s.calibration = s.model / "calibration.txt";
    if (s.evaluation.empty()) s.evaluation = s.model / "eval.txt";
    if (symmetric) inputs.quantizer.symmetry = Symmetry::Restricted;
    s.activations.inputs = inputs.get("--activation-bits");
    s.activations.cache = cache.get("--kv-bits");
    if (!s.output.empty() && solver.scale_type->count() == 0) s.solve.grid.scale_type = ScaleType::Float16;
    require(s.output.empty() || s.solve.grid.scale_type == ScaleType::Float16, "--output: --scale-type is",
            "not f16", "f16, the type of the GPTQ format");
    require(!s.resume || !s.output.empty(), "--resume: --output is", "missing", "the folder to go on in");
    s.solve.resolve_group_size();
    s.solve.validate();
    if (!s.output.empty()) io::require_gptq_bits(s.solve.grid.bits);
    return s;
}
