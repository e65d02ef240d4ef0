#include "settings.hpp"

#include "../support/activation_arguments.hpp"
#include "../support/command_line.hpp"
#include "../support/output_file.hpp"
#include "../support/solver_arguments.hpp"

Settings parse_settings(CLI::App& app, int argc, char** argv) {
    using residua::require;
    Settings s;
    s.solve.options.group_size = residua::SolverOptions::per_channel;
    app.add_option("--model", s.model, "folder with model.safetensors in timm's naming, and config.json")
        ->capture_default_str();
    app.add_option(
        "--calibration", s.calibration,
        ".safetensors with `images` (images, channels, height, width), normalized, and I32 `labels` "
        "(default: calibration.safetensors of the model)");
    app.add_option("--test", s.evaluation,
                   "likewise, to measure on (default: test.safetensors of the model)");
    app.add_option("--calibration-images", s.calibration_images, "as many, drawn at random; 0: all")
        ->check(not_negative)
        ->capture_default_str();
    app.add_option("--draws", s.draws, "of calibration images: means and standard errors over as many runs")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    CLI::Option* methods =
        app.add_option("--methods,--method", s.methods, "what to quantize with, separated by commas")
            ->delimiter(',')
            ->check(CLI::IsMember(method_names()))
            ->capture_default_str();
    const SolverArguments solver(app, s.solve);
    const StreamArguments stream(app, s.solve, "attn.proj and mlp.fc2");
    app.add_option("--patch-bits", s.patch_bits, "bits of the patch embedding's weights; 16: as they are")
        ->capture_default_str();
    ActivationArguments inputs;
    inputs.add_to(app);
    app.add_option("--output", s.output,
                   ".safetensors file for the quantized model, dequantized, in timm's naming");
    bool overwrite = false;
    app.add_flag("--overwrite", overwrite, "replace the file of --output");
    app.add_flag("--json", s.json, "print the table as JSON");
    app.add_flag("--allow-degraded", s.allow_degraded,
                 "end with 0 in spite of dead inputs, raised damping or layers worse than rounding");
    app.add_option("--threads", s.threads, "threads; 0: all")->check(not_negative)->capture_default_str();
    parse_arguments(app, argc, argv);

    if (solver.best->count() > 0 && methods->count() == 0) s.methods = {"qep"};
    solver.complete(s.solve);
    stream.complete(s.methods);
    if (s.calibration.empty()) s.calibration = s.model / "calibration.safetensors";
    if (s.evaluation.empty()) s.evaluation = s.model / "test.safetensors";
    s.activations = inputs.get("--activation-bits");

    require(s.patch_bits == 16 || (s.patch_bits >= 2 && s.patch_bits <= 8), "--patch-bits is", s.patch_bits,
            "2 to 8, or 16");
    require(s.draws == 1 || s.calibration_images > 0, "--draws: --calibration-images is", "0, all of them",
            "fewer than there are");
    if (!s.output.empty()) {
        require(s.methods.size() == 1, "--output: --methods is", "more than one", "one");
        require(s.draws == 1, "--output: --draws is", s.draws, "1");
        require_new_file("--output", s.output, overwrite);
        require_apart("--output", s.output, {s.model, s.calibration, s.evaluation});
    }
    s.solve.validate();
    check_methods(app, s.solve, s.methods);
    refuse_idle(app, inputs.bits == 16,
                {"--activation-group-size", "--activation-symmetric", "--activation-clip"},
                "--activation-bits is 16");
    refuse_idle(app, s.output.empty(), {"--overwrite"}, "there is no --output");
    return s;
}
