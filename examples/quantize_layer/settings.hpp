#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <residua/residua.hpp>
#include <string>

/// What the command line asks for.
struct Settings {
    std::string input = RESIDUA_EXAMPLE_DATA_DIR "/layer.safetensors";
    std::string output;
    std::string format = "residua";
    std::string name = "layer";  ///< of the layer, in the output
    std::string method = "all";
    residua::IntegerGrid grid{.bits = 4, .symmetry = residua::Symmetry::Restricted};
    residua::SolverOptions options;
    double alpha = -1;  ///< negative: the method's default
    double beta = -1;
    std::string device = "cpu";
    int threads = 0;  ///< 0: as many as the machine has
    bool calibrate_on_all = false;
    bool json = false;
    std::string command;  ///< the arguments, for the output's metadata

    /// Formats that fix the bits, the group size and the types of scales.
    bool is_block_format() const {
        return format.starts_with("gguf-") || format == "nvfp4" || format == "mxfp4";
    }
    residua::Index block_size() const { return format == "nvfp4" ? 16 : 32; }
};

inline Settings parse_settings(CLI::App& app, int argc, char** argv) {
    using namespace residua;
    const std::map<std::string, Symmetry> symmetries{
        {"restricted", Symmetry::Restricted}, {"full", Symmetry::FullRange}, {"none", Symmetry::None}};
    const std::map<std::string, Ordering> orderings{{"natural", Ordering::Natural},
                                                    {"activation", Ordering::Activation},
                                                    {"group", Ordering::GroupAware}};
    const std::map<std::string, ResidualView> views{{"compensated", ResidualView::Compensated},
                                                    {"quantized", ResidualView::Quantized},
                                                    {"clamped", ResidualView::Clamped}};
    const std::map<std::string, GroupScales> scales{{"current", GroupScales::Current},
                                                    {"stale", GroupScales::Stale}};
    const std::map<std::string, ScaleType> scale_types{
        {"f32", ScaleType::Float32}, {"f16", ScaleType::Float16}, {"bf16", ScaleType::BFloat16}};

    Settings s;
    std::string symmetric = "restricted", order = "natural", view = "compensated", fit = "current",
                type = "f32";
    const auto one_of = [&](const char* name, std::string& value, const auto& choices, const char* help) {
        app.add_option(name, value, help)->check(CLI::IsMember(&choices))->capture_default_str();
    };
    app.add_option("--input", s.input,
                   "safetensors file with weight, x and optionally x_fp (F32, F16 or BF16)")
        ->capture_default_str();
    app.add_option("--output", s.output, "file to write, in --format (one method only)");
    app.add_option("--format", s.format,
                   "residua: codes, scales, zeros, group_index and dequantized weights as plain tensors")
        ->check(CLI::IsMember({"residua", "gptq-v1", "gptq-v2", "compressed-tensors", "gguf-q4_0",
                               "gguf-q4_1", "gguf-q5_0", "gguf-q5_1", "gguf-q8_0", "nvfp4", "mxfp4"}))
        ->capture_default_str();
    app.add_option("--name", s.name, "name of the layer in the output")->capture_default_str();
    app.add_option("--method", s.method, "what to quantize with")
        ->check(CLI::IsMember({"rtn", "gptq", "gptaq", "rescomp", "gptq+rescomp", "shifted", "all"}))
        ->capture_default_str();
    app.add_option("--bits", s.grid.bits, "bits per weight, 2 to 8")->capture_default_str();
    const auto* group_size = app.add_option(
        "--group-size", s.options.group_size,
        "columns that share a scale; -1: one scale per output (default: 128, or the format's)");
    one_of("--symmetric", symmetric, symmetries, "grid around zero");
    app.add_flag("--clip", s.grid.clip.enabled, "search the range that is worth covering");
    const auto* scale_type =
        app.add_option("--scale-type", type,
                       "type that scales are stored in (default: f32; f16 for gptq-* and compressed-tensors)")
            ->check(CLI::IsMember(&scale_types));
    one_of("--order", order, orderings, "order in which columns are quantized");
    app.add_flag("--static-groups", s.options.static_groups, "fit all grids before the first column");
    app.add_option("--damping", s.options.damping.initial, "part of the mean diagonal added to H")
        ->capture_default_str();
    app.add_option("--alpha", s.alpha, "weight of the input residual (default: 0.25, shifted 0.5)");
    app.add_option("--beta", s.beta, "weight of the weight residual (default: 0.25)");
    app.add_option("--block-size", s.options.block_size, "columns of one sweep")->capture_default_str();
    one_of("--residual-view", view, views, "weights that residuals see");
    one_of("--group-scales", fit, scales, "weights that grids are fitted to");
    app.add_flag("--calibrate-on-all", s.calibrate_on_all, "hold no tokens back");
    app.add_option("--device", s.device, "where to accumulate and solve; cuda: for integer formats")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->capture_default_str();
    app.add_option("--threads", s.threads, "threads; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag("--json", s.json, "print the table as JSON");
    app.parse(argc, argv);
    for (int i = 1; i < argc; ++i) s.command += std::string(i > 1 ? " " : "") + argv[i];

    s.grid.symmetry = symmetries.at(symmetric);
    s.grid.scale_type = scale_types.at(type);
    s.options.ordering = orderings.at(order);
    s.options.view = views.at(view);
    s.options.scales = scales.at(fit);
    if (s.is_block_format()) {
        require(s.device == "cpu", "--format " + s.format + ": --device is", s.device, "cpu");
        if (group_size->count() == 0) s.options.group_size = s.block_size();
        require(s.options.group_size == s.block_size(), "--format " + s.format + ": --group-size is",
                s.options.group_size, std::to_string(s.block_size()));
        const bool is_known =
            s.method == "all" || s.method == "rtn" || s.method == "gptq" || s.method == "shifted";
        require(is_known, "--format " + s.format + ": --method is", s.method, "rtn, gptq, shifted or all");
    } else if (s.format != "residua" && scale_type->count() == 0) {
        s.grid.scale_type = ScaleType::Float16;
    }
    s.grid.validate();
    s.options.validate();
    require(s.output.empty() || s.method != "all", "--output: --method is", "all", "one method to write");
    return s;
}
