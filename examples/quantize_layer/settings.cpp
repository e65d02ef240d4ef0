#include "settings.hpp"

#include <residua/io/formats/gptq_config.hpp>
#include <residua/io/formats/onnx_matmul.hpp>

#include "../support/command_line.hpp"
#include "../support/ggml_types.hpp"
#include "../support/output_file.hpp"
#include "../support/solver_arguments.hpp"

Settings parse_settings(CLI::App& app, int argc, char** argv) {
    using residua::require;
    Settings s;
    std::vector<std::string> methods = method_names();
    methods.push_back("all");
    app.add_option("--input", s.input,
                   "safetensors file with weight, x and optionally x_fp (F32, F16 or BF16)")
        ->capture_default_str();
    app.add_option("--output", s.output, "file to write, in --format (one method only)");
    bool overwrite = false;
    app.add_flag("--overwrite", overwrite, "replace a file of the output's name");
    std::vector<std::string> formats = ggml_format_names();
    formats.insert(formats.begin(), {"residua", "gptq-v1", "gptq-v2", "compressed-tensors", "nvfp4", "mxfp4",
                                     "nf4", "onnx-matmulnbits"});
    app.add_option("--format", s.format,
                   "residua: codes, scales, zeros, group_index and dequantized weights as plain tensors")
        ->check(CLI::IsMember(formats))
        ->capture_default_str();
    app.add_option("--name", s.name, "name of the layer in the output")->capture_default_str();
    const CLI::Option* method = app.add_option("--method", s.method, "what to quantize with")
                                    ->transform(present_name)
                                    ->check(CLI::IsMember(methods))
                                    ->capture_default_str();
    const SolverArguments solver(app, s.solve);
    app.add_flag("--calibrate-on-all", s.calibrate_on_all, "hold no tokens back");
    app.add_option("--device", s.device, "where to accumulate and solve; cuda: for integer formats")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->capture_default_str();
    app.add_option("--threads", s.threads, "threads; 0: all")->check(not_negative)->capture_default_str();
    app.add_flag("--json", s.json, "print the table as JSON");
    app.add_flag("--allow-degraded", s.allow_degraded,
                 "end with 0 in spite of dead inputs, raised damping or layers worse than rounding");
    parse_arguments(app, argc, argv);
    if (solver.best->count() > 0 && method->count() == 0) s.method = "qep";
    solver.complete(s.solve);
    for (int i = 1; i < argc; ++i) s.command += std::string(i > 1 ? " " : "") + argv[i];

    if (s.is_block_format()) {
        require(s.device == "cpu", "--format " + s.format + ": --device is", s.device, "cpu");
        residua::Index& group_size = s.solve.options.group_size;
        if (s.format.starts_with("gguf-")) {
            require_group_size_of(ggml_type_named(s.format), group_size);
        } else {
            group_size = resolve_group_size(*float_format_named(s.format), group_size);
        }
        const bool is_known =
            s.method == "all" || s.method == "rtn" || s.method == "gptq" || s.method == "qep";
        require(is_known, "--format " + s.format + ": --method is", s.method, "rtn, gptq, qep or all");
    } else {
        s.solve.resolve_group_size();
        const bool is_onnx = s.format == "onnx-matmulnbits";
        if (is_onnx) residua::io::require_matmul_nbits(s.solve.grid.bits, s.solve.options.group_size);
        if (s.format != "residua" && !is_onnx && solver.scale_type->count() == 0)
            s.solve.grid.scale_type = residua::ScaleType::Float16;
    }
    s.solve.validate();
    const bool all = s.method == "all";
    check_methods(app, s.solve, all ? method_names() : std::vector<std::string>{s.method});
    const std::string format = "--format " + s.format;
    refuse_idle(app, s.is_block_format(), {"--bits", "--symmetric", "--scale-type"}, format + " fixes it");
    refuse_idle(app, s.output.empty(), {"--name", "--overwrite"}, "there is no --output");
    refuse_idle(app, s.format == "residua", {"--name"}, "format residua names no layer");
    if (s.format.starts_with("gptq-")) {
        residua::io::require_gptq_bits(s.solve.grid.bits);
        require(s.solve.grid.scale_type == residua::ScaleType::Float16, format + ": --scale-type is",
                "not f16", "f16");
    }
    const bool has_index = s.format == "residua" || s.format.starts_with("gptq-");
    require(has_index || s.solve.options.ordering != residua::Ordering::Activation ||
                s.solve.options.static_groups ||
                s.solve.options.group_size == residua::SolverOptions::per_channel,
            format + ": --order is", "activation",
            "natural or group, or --static-groups: the format has no index of groups");
    require(s.output.empty() || s.method != "all", "--output: --method is", "all", "one method to write");
    if (!s.output.empty()) {
        require_new_file("--output", s.output, overwrite);
        require_apart("--output", s.output, {s.input});
    }
    return s;
}
