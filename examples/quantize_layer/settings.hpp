#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <residua/residua.hpp>
#include <string>

/// What the command line asks for.
struct Settings {
    std::string input = RESIDUA_EXAMPLE_DATA_DIR "/layer.safetensors";
    std::string output;
    std::string method = "all";
    residua::IntegerGrid grid{.bits = 4, .symmetry = residua::Symmetry::Restricted};
    residua::SolverOptions options;
    double alpha = -1;  ///< negative: the method's default
    double beta = -1;
    int threads = 0;  ///< 0: as many as the machine has
    bool calibrate_on_all = false;
    bool json = false;
    std::string command;  ///< the arguments, for the output's metadata
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
    app.add_option("--output", s.output,
                   "write codes, scales, zeros, group_index and dequantized weights (one method only)");
    app.add_option("--method", s.method, "what to quantize with")
        ->check(CLI::IsMember({"rtn", "gptq", "gptaq", "rescomp", "gptq+rescomp", "shifted", "all"}))
        ->capture_default_str();
    app.add_option("--bits", s.grid.bits, "bits per weight, 2 to 8")->capture_default_str();
    app.add_option("--group-size", s.options.group_size,
                   "columns that share a scale; -1: one scale per output")
        ->capture_default_str();
    one_of("--symmetric", symmetric, symmetries, "grid around zero");
    app.add_flag("--clip", s.grid.clip.enabled, "search the range that is worth covering");
    one_of("--scale-type", type, scale_types, "type that scales are stored in");
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
    s.grid.validate();
    s.options.validate();
    require(s.output.empty() || s.method != "all", "--output: --method is", "all", "one method to write");
    return s;
}
