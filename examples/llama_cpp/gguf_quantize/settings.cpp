#include "settings.hpp"

#include "../../support/command_line.hpp"
#include "../../support/solver_arguments.hpp"
#include "type_names.hpp"

namespace {

using namespace residua;

std::pair<std::string, ggml_type> tensor_type(const std::string& text) {
    const auto at = text.rfind('=');
    require(at != std::string::npos && at > 0, "--tensor-type is", text, "a name, '=' and a type");
    return {text.substr(0, at), type_named(text.substr(at + 1))};
}

}  // namespace

Settings parse_settings(CLI::App& app, int argc, char** argv) {
    Settings s;
    app.add_option("--model", s.model, "GGUF file of the model, F16, BF16 or F32")->required();
    app.add_option("--calibration", s.calibration,
                   "text to calibrate on, cut into tokens by the model's tokenizer")
        ->required();
    app.add_option("--output", s.output, "GGUF file to write")->required();
    CLI::Option* type =
        app.add_option("--type", s.type, "types of the tensors: a mix of llama.cpp, for example Q4_K_M");
    CLI::Option* like = app.add_option("--like", s.like, "or those of this GGUF file of the same model");
    type->excludes(like);
    std::vector<std::string> tensor_types;
    app.add_option("--tensor-type", tensor_types,
                   "name=type, before both: of tensors whose names match the regular expression")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    CLI::Option* method =
        app.add_option("--method", s.method, "what to quantize with (default: gptq, --sequential qep)");
    method->check(CLI::IsMember({"rtn", "gptq", "qep"}));
    const SolverArguments solver(app, s.solve);
    CLI::Option* sequential =
        app.add_flag("--sequential,!--one-pass", s.sequential,
                     "quantize in the order of the computation, each layer on what the quantized "
                     "ones before it pass on (default: with qep)");
    app.add_option("--window", s.window, "tokens of a window")->capture_default_str();
    app.add_option("--calibration-windows", s.windows, "at most so many; 0: all")
        ->check(not_negative)
        ->capture_default_str();
    CLI::Option* stream_alpha = app.add_option(
        "--stream-alpha", s.solve.options.stream_alpha,
        "with qep: part of the residual stream's deviation that layers which write to it correct");
    stream_alpha->capture_default_str();
    CLI::Option* memory =
        app.add_option("--memory", s.memory, "GiB for moments and solves; 0: most of what is free")
            ->capture_default_str();
    memory->check(not_negative);
    app.add_option("--threads", s.threads, "threads; 0: all")->check(not_negative)->capture_default_str();
    bool resume = false, overwrite = false;
    app.add_flag("--resume", resume, "go on with what a run that ended early has left");
    app.add_flag("--overwrite", overwrite, "replace files of these names, and what such a run has left");
    app.add_option("--report", s.report, "JSON file that tells what became of every tensor");
    app.add_flag("--allow-requantize", s.allow_requantize, "quantize tensors that are quantized already");
    app.add_flag("--allow-unseen-experts", s.allow_unseen, "round the experts that read no token");
    app.add_flag("--allow-degraded", s.allow_degraded,
                 "end with 0 in spite of dead inputs, raised damping or layers worse than rounding");
    parse_arguments(app, argc, argv);

    if (solver.best->count() > 0 && method->count() == 0)
        s.method = sequential->count() > 0 && !s.sequential ? "gptq" : "qep";
    if (method->count() == 0 && s.sequential) s.method = "qep";
    if (sequential->count() == 0) s.sequential = s.method == "qep";
    require(s.method != "qep" || s.sequential, "--one-pass: --method is", "qep",
            "gptq or rtn: in one pass no layer sees what the quantized ones before it pass on");
    solver.complete(s.solve);
    require(type->count() + like->count() == 1, "--type and --like are", "absent", "one of the two");
    if (type->count() > 0) (void)mix_named(s.type);
    for (const std::string& text : tensor_types) s.tensor_types.push_back(tensor_type(text));
    require(s.window >= Settings::shortest_window, "--window is", s.window,
            "at least " + std::to_string(Settings::shortest_window));
    s.existing = existing_by(resume, overwrite);
    require_new_file("--output", s.output, overwrite);
    require_apart("--output", s.output, {s.model, s.calibration, s.like});
    if (!s.report.empty()) {
        require_new_file("--report", s.report, overwrite);
        require_apart("--report", s.report, {s.model, s.calibration, s.like});
    }
    s.choices = choices_of(app, {"help", "model", "calibration", "output", "like", "report", "memory",
                                 "threads", "resume", "overwrite", "allow-degraded"});
    s.choices["--method"] = s.method;
    s.solve.validate();
    check_methods(app, s.solve, {s.method});
    refuse_idle(app, true, {"--bits", "--group-size", "--symmetric", "--scale-type"},
                "the types of GGUF fix it");
    refuse_idle(app, s.method != "qep", {"--stream-alpha"}, "--method is not qep");
    refuse_idle(app, s.sequential, {"--memory"}, "--sequential has the moments of one input at a time");
    return s;
}
