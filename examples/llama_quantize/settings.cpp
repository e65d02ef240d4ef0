#include "settings.hpp"

#include "../support/activation_arguments.hpp"
#include "../support/command_line.hpp"
#include "../support/ggml_types.hpp"
#include "../support/solver_arguments.hpp"

namespace {

using namespace residua;

/// The options that change no byte of the output, and those that name files.
const std::set<std::string> no_choices{"help",        "model",  "calibration",  "calibration-windows",
                                       "window",      "eval",   "eval-windows", "methods",
                                       "output",      "resume", "overwrite",    "plot",
                                       "no-baseline", "json",   "threads",      "allow-degraded",
                                       "rank-timeout"};

/// The files that a run reads, or folders of them.
std::vector<std::filesystem::path> inputs_of(const Settings& s) {
    return {s.model, s.calibration, s.evaluation, s.rotation};
}

/// What a format of other grids than integers goes together with.
void check_blocks(const Settings& s, const std::string& format) {
    const bool is_half = s.blocks == io::GGMLType::F16;
    const std::string what = "--format " + format + ": ";
    for (const std::string& method : s.methods) {
        const bool known =
            method == "none" || method == "rtn" || (!is_half && (method == "gptq" || method == "qep"));
        require(known, what + "--method is", method,
                is_half ? "rtn, for nothing is solved" : "rtn, gptq or qep");
    }
    require(s.device == "cpu", what + "--device is", s.device, "cpu");
    if (!s.blocks) return;
    require(s.existing != Existing::Resume, what + "--resume is", "given",
            "nothing, for the file is written when it is complete");
    require(s.rotation == "none" || !s.online_hadamard, what + "--rotate is", s.rotation,
            "none, or without --online-hadamard: llama.cpp has no online transforms");
    if (!is_half) require_group_size_of(*s.blocks, s.solve.options.group_size);
    if (!s.output.empty() && s.methods.size() == 1) {
        require_new_file("--output", s.output, s.existing == Existing::Overwrite);
        require_apart("--output", s.output, inputs_of(s));
    }
}

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
        "token ids, each line cut into windows (default: calibration.txt of the model)");
    app.add_option("--eval", s.evaluation, "text to measure perplexity on (default: eval.txt of the model)");
    app.add_option("--window", s.window, "tokens of a window")->capture_default_str();
    app.add_option("--calibration-windows", s.calibration_windows, "at most so many; 0: all")
        ->check(not_negative)
        ->capture_default_str();
    app.add_option("--eval-windows", s.evaluation_windows, "at most so many; 0: all")
        ->check(not_negative)
        ->capture_default_str();
    CLI::Option* methods = app.add_option("--methods,--method", s.methods,
                                          "what to quantize with, separated by commas; none: evaluate");
    methods->delimiter(',')->transform(present_name)->check(CLI::IsMember(known))->capture_default_str();
    const SolverArguments solver(app, s.solve);
    const StreamArguments stream(app, s.solve, "o_proj and down_proj");
    const CLI::Option* final_norm = app.add_flag("--final-norm,!--no-final-norm", s.final_norm,
                                                 "fit the last norm's weights to what the blocks became");
    app.add_option(
           "--rotate", s.rotation,
           "none, hadamard (QuaRot), learned (from there, for what is rounded), or a safetensors file "
           "with R1 and R2 (SpinQuant)")
        ->capture_default_str();
    app.add_option("--rotation-seed", s.rotation_seed, "of the random signs")->capture_default_str();
    app.add_option("--rotation-steps", s.rotation_steps, "of --rotate learned, at most, for each rotation")
        ->check(not_negative)
        ->capture_default_str();
    const CLI::Option* online = app.add_flag(
        "--online-hadamard,!--no-online-hadamard", s.online_hadamard,
        "with --rotate: transforms before o_proj and down_proj too, which no engine but this one has "
        "(default: where nothing is written)");
    ActivationArguments inputs, cache;
    inputs.add_to(app);
    app.add_option("--kv-bits", cache.bits, "bits of the key and value cache; 16: as it is")
        ->capture_default_str();
    app.add_option("--output", s.output,
                   "folder for the quantized model, or its GGUF file (with several methods: one each in it)");
    std::string format = "gptq-v2";
    std::vector<std::string> formats = ggml_format_names();
    formats.insert(formats.begin(),
                   {"gptq-v1", "gptq-v2", "compressed-tensors", "nvfp4", "mxfp4", "nf4", "gguf-f16"});
    app.add_option("--format", format,
                   "of the output; compressed-tensors: pack-quantized; gguf-: one file, of that type")
        ->check(CLI::IsMember(formats))
        ->capture_default_str();
    bool resume = false, overwrite = false;
    app.add_flag("--resume", resume, "go on with the blocks that --output holds");
    app.add_flag("--overwrite", overwrite, "replace the model that --output holds, and files of that name");
    app.add_option("--plot", s.plot, "SVG file for the output error of every layer");
    app.add_flag("!--no-baseline", s.baseline, "do not measure the model as it is");
    app.add_flag("--json", s.json, "print the table as JSON");
    app.add_flag("--allow-degraded", s.allow_degraded,
                 "end with 0 in spite of dead inputs, raised damping or layers worse than rounding");
    app.add_option("--device", s.device, "where the model runs and its layers are solved")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->capture_default_str();
    app.add_option("--threads", s.threads, "threads; 0: all")->check(not_negative)->capture_default_str();
    add_choice<bool>(app, "--reduction", s.cooperation.ordered, {{"fast", false}, {"ordered", true}},
                     "how the moments of several ranks are added up; ordered: the same bits for any number");
    app.add_option("--segments", s.cooperation.segments, "with --reduction ordered: parts of the windows")
        ->capture_default_str();
    app.add_option("--rank-timeout", s.cooperation.timeout, "seconds that ranks wait for each other")
        ->capture_default_str();
    parse_arguments(app, argc, argv);

    if (format == "gptq-v1") s.format = io::GPTQVersion::V1;
    if (format.starts_with("gguf-")) {
        s.blocks = format == "gguf-f16" ? io::GGMLType::F16 : ggml_type_named(format);
        const bool is_half = *s.blocks == io::GGMLType::F16;
        if (methods->count() == 0)
            s.methods = is_half ? std::vector<std::string>{"rtn"} : std::vector<std::string>{"gptq", "qep"};
    }
    s.is_compressed_tensors = format == "compressed-tensors";
    s.floats = float_format_named(format);
    if (s.floats && methods->count() == 0) s.methods = {"gptq", "qep"};
    if (online->count() == 0) s.online_hadamard = s.output.empty() && !s.blocks && s.rotation != "none";
    if (solver.best->count() > 0) {
        if (methods->count() == 0) s.methods = {"qep"};
        if (final_norm->count() == 0) s.final_norm = true;
    }
    solver.complete(s.solve);
    stream.complete(s.methods);
    const auto some = [&](auto predicate) {
        return std::any_of(s.methods.begin(), s.methods.end(), predicate);
    };
    const auto quantizes = [](const std::string& method) { return method != "none"; };
    require(final_norm->count() == 0 || !s.final_norm || some(quantizes), "--final-norm: --methods is",
            "none", "one that quantizes");
    require(solver.best->count() == 0 || some(quantizes), "--best: --methods is", "none",
            "one that quantizes");

    if (s.calibration.empty()) s.calibration = s.model / "calibration.txt";
    if (s.evaluation.empty()) s.evaluation = s.model / "eval.txt";
    s.activations.inputs = inputs.get("--activation-bits");
    s.activations.cache = cache.get("--kv-bits");
    if (!s.output.empty() && solver.scale_type->count() == 0) s.solve.grid.scale_type = ScaleType::Float16;
    require(s.output.empty() || s.is_compressed_tensors || s.solve.grid.scale_type == ScaleType::Float16,
            "--output: --scale-type is", "not f16", "f16, the type of the GPTQ format");
    require(!resume || !s.output.empty(), "--resume: --output is", "missing", "the folder to go on in");
    s.existing = existing_by(resume, overwrite);
    if (!s.plot.empty()) {
        require_new_file("--plot", s.plot, overwrite);
        require_apart("--plot", s.plot, inputs_of(s));
    }
    require(s.cooperation.segments >= 1 && s.cooperation.segments <= 1 << 16, "--segments is",
            s.cooperation.segments, "1 to 65536");
    require(s.cooperation.timeout > 0, "--rank-timeout is", s.cooperation.timeout, "a positive number");
    s.choices = choices_of(app, no_choices);
    if (!s.is_onto_integers()) check_blocks(s, format);
    if (s.is_onto_integers()) s.solve.resolve_group_size();
    if (s.floats) s.solve.options.group_size = resolve_group_size(*s.floats, s.solve.options.group_size);
    const bool has_neighbours = s.solve.options.ordering != Ordering::Activation ||
                                s.solve.options.static_groups ||
                                s.solve.options.group_size == SolverOptions::per_channel;
    require(has_neighbours || !(s.floats || s.is_compressed_tensors), "--format " + format + ": --order is",
            "activation", "natural or group, or --static-groups: the format has no index of groups");
    s.solve.validate();
    check_methods(app, s.solve, s.methods);
    refuse_idle(app, !s.cooperation.ordered, {"--segments"}, "--reduction is fast");
    refuse_idle(app, s.output.empty() && s.is_onto_integers(), {"--format"}, "there is no --output");
    refuse_idle(app, !s.is_onto_integers(), {"--bits", "--symmetric", "--scale-type"},
                "--format " + format + " fixes it");
    refuse_idle(app, s.output.empty() && s.plot.empty(), {"--overwrite"}, "there is no --output or --plot");
    refuse_idle(app, s.methods == std::vector<std::string>{"none"}, {"--output", "--plot"},
                "nothing is quantized");
    refuse_idle(app, s.rotation_is_file() || s.rotation == "none", {"--rotation-seed"},
                "--rotate is not hadamard or learned");
    refuse_idle(app, s.rotation != "learned", {"--rotation-steps"}, "--rotate is not learned");
    refuse_idle(app, s.rotation == "none", {"--online-hadamard"}, "--rotate is none");
    refuse_idle(app, inputs.bits == 16,
                {"--activation-group-size", "--activation-symmetric", "--activation-clip"},
                "--activation-bits is 16");
    require(s.output.empty() || s.format != io::GPTQVersion::V1 || s.solve.grid.symmetry != Symmetry::None,
            "--format gptq-v1: --symmetric is", "none",
            "restricted or full: this version cannot hold zeros of 0, which groups of positive weights have");
    if (!s.output.empty() && s.is_onto_integers() && !s.is_compressed_tensors)
        io::require_gptq_bits(s.solve.grid.bits);
    return s;
}
