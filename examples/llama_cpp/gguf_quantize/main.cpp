/// Quantizes a GGUF model of any architecture that llama.cpp knows, with llama.cpp inside.
///
///     settings.cpp             the command line
///     engine.hpp               llama.cpp: to load a model, and to send text through it before our eyes
///     calibration_text.hpp     a text as windows of tokens
///     weight_use.hpp           a node of llama.cpp's graph that reads a weight, and what it reads
///     reading_plan.hpp         all of them in order: which weights read the same
///     draft.cpp                the output on its way, and how to go on with it; gguf_index.hpp reads such files
///     matrix_quantizer.cpp     one matrix onto the type that the file has for it
///     one_pass.hpp             the whole model from what full precision reads
///     sequential.hpp           layer after layer, each on what the quantized ones before it pass on; handoff.hpp
///     quantizing_run.hpp       what the ways through a model share

#include <fstream>
#include <iostream>
#include <residua/io/formats/model_config.hpp>

#include "../../support/command_line.hpp"
#include "calibration_text.hpp"
#include "one_pass.hpp"
#include "sequential.hpp"

namespace {

using residua::Index;
using residua::require;

/// Refuses what is quantized already or only a part of a model.
void check_source(const GGUFIndex& source, const Settings& settings) {
    const std::string shown = "--model: '" + settings.model.string() + "'";
    require(source.number("split.count").value_or(1) == 1, shown + " is", "one part of several",
            "a whole model: llama-gguf-split --merge makes one");
    for (const auto& t : source.tensors())
        require(settings.allow_requantize || !ggml_is_quantized(t.type),
                shown + ": the tensor '" + t.name + "' is", ggml_type_name(t.type),
                "F32, F16 or BF16, or --allow-requantize");
}

/// What the result depends on, for runs that go on with it.
nlohmann::json fingerprint(const Settings& settings, const GGUFIndex& source,
                           const std::vector<engine::Window>& windows) {
    ContentHash model, tokens;
    model.add(source.bytes());
    for (const auto& window : windows) tokens.add(std::as_bytes(std::span(window)));
    return {{"choices", settings.choices},
            {"model", model.text()},
            {"calibration tokens", tokens.text()},
            {"like", settings.like.empty() ? "" : content_of_file(settings.like)},
            {"residua", to_string(residua::version)},
            {"llama.cpp", llama_version()}};
}

/// From the first tokens of the text.
std::vector<Reading> plan(llama_model& model, const std::vector<engine::Window>& windows) {
    const engine::Window tokens(windows.front().begin(), windows.front().begin() + Settings::shortest_window);
    const auto count = Index(tokens.size());
    ReadingPlan plan;
    engine::Walk walk(model, {.window = count, .windows = 1, .outputs = count, .threads = 1},
                      [&](ggml_tensor* node, bool ask) {
                          if (ask) plan.see(node);
                          return !ask;
                      });
    walk.run(std::span(&tokens, 1));
    return plan.readings();
}

void write_report(const Settings& settings, const std::vector<Record>& records) {
    nlohmann::json list = nlohmann::json::array();
    for (const Record& record : records) list.push_back(record.json());
    residua::io::write_json(settings.report, list);
}

/// What became of the matrices in sum, and by name of those that had to put up with something. Whether there are such.
bool print(const std::vector<Record>& records) {
    std::map<std::pair<std::string, std::string>, std::pair<int, double>> sums;
    bool degraded = false;
    for (const Record& r : records) {
        auto& [count, seconds] = sums[{r.type, r.method}];
        ++count;
        seconds += r.seconds;
        if (r.degradation.empty()) continue;
        std::fprintf(stderr, "%s, matrix %td: %s\n", r.tensor.c_str(), r.matrix, r.degradation.c_str());
        degraded = true;
    }
    std::printf("%-8s %-8s %9s %10s\n", "type", "by", "matrices", "seconds");
    for (const auto& [key, sum] : sums)
        std::printf("%-8s %-8s %9d %10.1f\n", key.first.c_str(), key.second.c_str(), sum.first, sum.second);
    return degraded;
}

int quantize(const Settings& settings) {
    const GGUFIndex source(settings.model);
    check_source(source, settings);
    const llama_model_ptr model = engine::load(settings.model, true);
    const auto windows = read_windows(*model, settings.calibration, settings.window, settings.windows);
    const std::vector<Reading> readings = plan(*model, windows);
    std::set<std::string> read;
    for (const Reading& reading : readings) read.insert(reading.weights.begin(), reading.weights.end());

    Draft draft(settings, fingerprint(settings, source, windows), read);
    std::fprintf(stderr, "%zu windows of %td tokens, %zu inputs of %zu weights\n", windows.size(),
                 settings.window, readings.size(), read.size());
    QuantizingRun run(settings, source, draft);
    if (settings.sequential) {
        Sequential(run, *model, readings, windows)();
    } else {
        OnePass(run, *model, readings, windows)();
    }

    const std::vector<Record> records = draft.records();
    draft.finish(settings.output);
    if (!settings.report.empty()) write_report(settings, records);
    const bool degraded = print(records);
    finish_stdout();
    return degraded && !settings.allow_degraded ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    Eigen::setNbThreads(1);  // blocks run in parallel, not the products within them
    CLI::App app("Quantizes a GGUF model with llama.cpp inside.", "gguf_quantize");
    return exit_code_of(app, [&] {
        const Settings settings = parse_settings(app, argc, argv);
        engine::Log::keep();
        return quantize(settings);
    });
}
