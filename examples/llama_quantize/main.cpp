/// Quantizes a language model of the Llama architecture with every method that is asked for, and measures
/// perplexity.
///
///     ../llama               the model itself
///     settings.cpp           the command line
///     learn_rotations.cpp    --rotate learned
///     quantize_model.hpp     block after block, layer after layer
///     calibration.hpp        the tokens on their way through the full-precision and the quantized model:
///                            host_calibration.hpp, cuda/cuda_calibration.hpp
///     engine.hpp             a model on some device: cpu_engine.hpp, cuda_engine.cu
///     layer_solver.hpp       one layer in host memory: cpu_solver.cpp, block_solver.cpp
///     ranks.hpp              the processes that share the work
///     output.hpp             the output: checkpoint.hpp, shard by shard, and how to go on with it; gguf_output.cpp
///     plain_text.hpp         the tokens of a text, by python3
///     plot.cpp               --plot

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <map>

#include "../llama/cuda/requirements.hpp"
#include "../support/memory.hpp"
#include "checkpoint.hpp"
#include "cpu_engine.hpp"
#include "gguf_output.hpp"
#include "learn_rotations.hpp"
#include "model_checks.hpp"
#include "plain_text.hpp"
#include "plot.hpp"
#include "quantize_model.hpp"
#include "settings.hpp"

namespace {

using residua::Index;
using Clock = std::chrono::steady_clock;

constexpr const char* full_precision_name = "full precision";

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Progress on stderr: a line that lives on a terminal, a line a block elsewhere.
class ProgressLine {
  public:
    /// Of several ranks one speaks.
    explicit ProgressLine(std::string task, const Ranks& ranks)
        : task_(std::move(task)),
          live_(ranks.rank() == 0 && isatty(STDERR_FILENO)),
          silent_(ranks.rank() != 0) {}
    ~ProgressLine() {
        if (live_) std::fprintf(stderr, "\r\033[K");
    }

    void quantizing(const Progress& p, Index blocks) {
        if (live_) {
            const double left = p.part > 0 ? elapsed() * (1 - p.part) / p.part : 0;
            std::fprintf(stderr, "\r\033[K%s: block %td of %td  %-16s %3.0f %%  %.0f s left  objective %.4g",
                         task_.c_str(), std::min(p.block + 1, blocks), blocks, p.layer.c_str(), 100 * p.part,
                         left, p.objective);
        } else if (!silent_ && p.block > block_) {
            std::fprintf(stderr, "%s: block %td of %td done, %.1f s\n", task_.c_str(), p.block, blocks,
                         elapsed());
            block_ = p.block;
        }
    }

    void evaluating(Index done, Index windows) {
        if (live_)
            std::fprintf(stderr, "\r\033[K%s: %td of %td windows evaluated", task_.c_str(), done, windows);
    }

  private:
    double elapsed() const { return seconds_since(start_); }

    std::string task_;
    bool live_;
    bool silent_;
    Index block_ = 0;
    Clock::time_point start_ = Clock::now();
};

struct Row {
    std::string method;
    std::string status = "success";
    double perplexity = NAN;
    double seconds = 0;  ///< of the quantization
    std::vector<LayerRecord> layers = {};

    void measured(double value) {
        perplexity = value;
        if (!std::isfinite(value)) status = "the perplexity is no finite number";
    }
};

class Comparison {
  public:
    Comparison(const Settings& settings, Ranks& ranks)
        : settings_(settings),
          ranks_(ranks),
          executor_(settings.threads > 0 ? residua::Executor(settings.threads) : residua::Executor()) {}

    std::vector<Row> run() {
        residua::require(settings_.is_onto_integers() || ranks_.size() == 1, "--format: processes are",
                         ranks_.size(), "1: they share the solves of integer grids alone");
        const llama::Config config = llama::Config::read(settings_.model);
        evaluation_ = read_text_windows(settings_.model, settings_.evaluation, config.vocabulary,
                                        settings_.window, settings_.evaluation_windows);
        calibration_ = read_text_windows(settings_.model, settings_.calibration, config.vocabulary,
                                         settings_.window, settings_.calibration_windows);
        if (settings_.device == "cuda")
            llama::cuda::require_supported(
                config, std::max(llama::longest(calibration_), llama::longest(evaluation_)));
        require_positions(settings_.model, "calibration", llama::longest(calibration_));
        require_positions(settings_.model, "eval", llama::longest(evaluation_));
        if (ranks_.rank() == 0) {
            std::fprintf(stderr, "%s: %td blocks, %zu windows to calibrate on, %zu to evaluate\n",
                         settings_.model.c_str(), config.blocks, calibration_.size(), evaluation_.size());
            announce_memory(memory_needed(config));
            const residua::io::SafetensorsCheckpoint checkpoint(settings_.model);
            require_finite_weights(checkpoint, executor_);
            require_one_head(checkpoint, config.tied_head);
        }
        read_rotations(config);
        if (!settings_.output.empty() && ranks_.rank() == 0) open_outputs(config);
        if (settings_.rotation == "learned")
            rotations_ = learn_rotations(settings_, calibration_, executor_, ranks_.rank() == 0);
        std::vector<Row> rows;
        if (settings_.baseline) rows.push_back(full_precision());
        for (const std::string& method : settings_.methods)
            if (method != "none") rows.push_back(quantize(method));
        return rows;
    }

  private:
    std::unique_ptr<Engine> make_engine(const llama::Rotations* rotations) {
        if (settings_.device == "cuda")
            return make_cuda_engine(settings_.model, rotations, settings_.solve, ranks_,
                                    settings_.cooperation);
        const Cooperation& cooperation = settings_.cooperation;
        return std::make_unique<CpuEngine>(
            settings_.model, rotations, make_solver(), executor_,
            Calibration::Segments{cooperation.segments_of(ranks_), cooperation.segments_here(ranks_)});
    }

    std::unique_ptr<LayerSolver> make_solver() {
        if (settings_.blocks) return make_block_solver(settings_.solve, *settings_.blocks, executor_);
        if (settings_.floats) return make_float_solver(settings_.solve, *settings_.floats, executor_);
        return make_cpu_solver(settings_.solve, executor_, ranks_, settings_.cooperation);
    }

    Row full_precision() {
        Row row{.method = full_precision_name};
        row.measured(evaluate(row.method, *make_engine(nullptr), {}));
        return row;
    }

    Row quantize(const std::string& method) {
        Row row{.method = method};
        const auto start = Clock::now();
        const auto at = outputs_.find(method);
        Output* output = at == outputs_.end() ? nullptr : at->second.get();
        const auto engine = make_engine(rotations_ ? &*rotations_ : nullptr);
        if (output) output->start();
        try {
            ProgressLine line(method, ranks_);
            const ModelMethod with{.name = method,
                                   .residual_stream = settings_.solve.corrects_stream(method),
                                   .final_norm = settings_.final_norm};
            // On a device the forward pass takes a small part of the run.
            const bool reads_tokens =
                with.reads_tokens() || !settings_.plot.empty() || settings_.device == "cuda";
            const llama::Windows none;
            const llama::Windows& windows = reads_tokens ? calibration_ : none;
            const auto calibration =
                engine->calibrate(windows, with.references(Index(windows.size())), settings_.activations);
            ModelQuantizer quantizer(
                with, ranks_, [&](const Progress& p) { line.quantizing(p, engine->model().config.blocks); });
            row.layers = quantizer.run(*calibration, output);
        } catch (const UnsolvedLayer& error) {
            row.status = error.what();
            return row;
        }
        if (output) output->finish(engine->model(), settings_.final_norm);
        outputs_.erase(method);
        row.seconds = seconds_since(start);
        row.measured(evaluate(method, *engine, settings_.activations));
        return row;
    }

    /// Bytes of host memory that the largest moment takes, about: the model, this rank's windows on their way through
    /// it, and a solve of the widest layer.
    double memory_needed(const llama::Config& c) const {
        constexpr double size = sizeof(float);
        double tokens = 0;
        for (const auto& window : calibration_) tokens += double(window.size()) / ranks_.size();
        double all_blocks = 0;
        double largest_block = 0;
        double widest = 0;
        double largest = 0;
        for (Index i = 0; i < c.blocks; ++i) {
            double block = 0;
            for (const llama::LayerSpec& layer : llama::layers_of(c, i)) {
                const double weights = double(layer.out) * double(layer.in);
                block += weights;
                largest = std::max(largest, weights);
                widest = std::max(widest, double(layer.in));
            }
            all_blocks += block;
            largest_block = std::max(largest_block, block);
        }
        const double model = 2 * double(c.vocabulary) * double(c.hidden) + all_blocks + largest_block;
        double learning = 0;  // two copies, and all weights in double
        if (settings_.rotation == "learned")
            learning =
                2 * size * model + sizeof(double) * (all_blocks + 18 * double(c.hidden) * double(c.hidden));
        if (settings_.device == "cuda") {  // codes stay here; what is rotated or quantized is read as a whole
            const bool is_whole = settings_.rotation != "none" || !c.quantization.is_null();
            return std::max(learning, all_blocks + (is_whole ? size * model : 0));
        }
        const double streams = 2 * tokens * (double(c.hidden) + widest);
        const double batch = 2 * 8192 * widest;
        return std::max(learning, size * (model + streams + batch + 4 * widest * widest + 4 * largest));
    }

    void read_rotations(const llama::Config& config) {
        if (settings_.rotation == "hadamard")
            rotations_ =
                llama::Rotations::hadamard(config, settings_.rotation_seed, settings_.online_hadamard);
        if (settings_.rotation_is_file())
            rotations_ = llama::Rotations::read(settings_.rotation, config, settings_.online_hadamard);
        if (settings_.rotation == "learned") llama::Rotations::require_learnable(config);
    }

    /// How the model is rotated, for config.json; null if it is not.
    nlohmann::json rotation() const {
        if (settings_.rotation == "none") return {};
        nlohmann::json json{{"kind", settings_.rotation}, {"online_hadamard", settings_.online_hadamard}};
        if (!settings_.rotation_is_file()) json["seed"] = settings_.rotation_seed;
        return json;
    }

    /// One for each method, before the first one starts; rank 0 writes them.
    void open_outputs(const llama::Config& config) {
        const auto path_of = [&](const std::string& name) {
            return settings_.methods.size() == 1 ? settings_.output : settings_.output / name;
        };
        if (settings_.blocks) {
            for (const std::string& method : settings_.methods)
                if (method != "none")
                    outputs_[method] =
                        std::make_unique<GGUFOutput>(path_of(method + ".gguf"), settings_.model, config,
                                                     *settings_.blocks, settings_.existing);
            return;
        }
        const nlohmann::json common = fingerprint();
        for (const std::string& method : settings_.methods) {
            if (method == "none") continue;
            nlohmann::json made_with = common;
            made_with["--method"] = method;
            outputs_[method] =
                std::make_unique<Checkpoint>(path_of(method), settings_.model, config, checkpoint_format(),
                                             rotation(), made_with, settings_.existing);
        }
    }

    CheckpointFormat checkpoint_format() const {
        const auto& options = settings_.solve.options;
        if (settings_.floats) return {*settings_.floats, options.group_size};
        if (settings_.is_compressed_tensors)
            return CheckpointFormat(PackQuantized{settings_.solve.grid, options.group_size});
        return CheckpointFormat(residua::io::GPTQConfig{
            .bits = settings_.solve.grid.bits,
            .group_size = options.group_size,
            .desc_act = options.ordering == residua::Ordering::Activation && !options.static_groups &&
                        options.group_size != residua::SolverOptions::per_channel,
            .sym = settings_.solve.grid.symmetry != residua::Symmetry::None,
            .version = settings_.format});
    }

    /// All that the output depends on but the method: every option that is not known to change nothing, and
    /// the contents of what other options name.
    nlohmann::json fingerprint() const {
        nlohmann::json json = settings_.choices;
        ContentHash tokens;
        for (const auto& window : calibration_) tokens.add(std::as_bytes(std::span(window)));
        json["calibration tokens"] = tokens.text();
        json["model"] = content_of_model(settings_.model);
        if (settings_.rotation_is_file()) json["rotation"] = content_of_file(settings_.rotation);
        json["residua"] = to_string(residua::version);
        return json;
    }

    double evaluate(const std::string& task, Engine& engine,
                    const llama::ActivationSettings& activations) const {
        ProgressLine line(task, ranks_);
        const auto mine = residua::share_of(Index(evaluation_.size()), ranks_.rank(), ranks_.size());
        const llama::Windows windows(evaluation_.begin() + mine.first, evaluation_.begin() + mine.end());
        const llama::Loss loss = engine.loss(
            windows, activations, [&](Index done) { line.evaluating(done, Index(windows.size())); });
        double sums[2] = {loss.sum, loss.predictions};
        ranks_.sum(std::span<double>(sums), residua::every_rank);
        return llama::Loss{sums[0], sums[1]}.perplexity();
    }

    const Settings& settings_;
    Ranks& ranks_;
    residua::Executor executor_;
    llama::Windows calibration_, evaluation_;
    std::optional<llama::Rotations> rotations_;
    std::map<std::string, std::unique_ptr<Output>> outputs_;
};

nlohmann::json to_json(const Row& row) {
    return {{"method", row.method},
            {"status", row.status},
            {"perplexity", number_or_null(row.perplexity)},
            {"seconds", row.seconds},
            {"layers", to_json(row.layers)}};
}

void print(const std::vector<Row>& rows, bool json) {
    if (json) {
        nlohmann::json table = nlohmann::json::array();
        for (const Row& row : rows) table.push_back(to_json(row));
        std::cout << table.dump(2) << '\n';
        return;
    }
    const bool has_baseline = !rows.empty() && rows.front().method == full_precision_name;
    std::printf("%-16s %12s %12s %10s  %s\n", "method", "perplexity", has_baseline ? "excess" : "", "seconds",
                "status");
    for (const Row& row : rows) {
        std::printf("%-16s %12.4f ", row.method.c_str(), row.perplexity);
        if (has_baseline) {
            std::printf("%12.4f", row.perplexity - rows.front().perplexity);
        } else {
            std::printf("%12s", "");
        }
        std::printf(" %10.1f  %s\n", row.seconds, row.status.c_str());
    }
}

void plot(const std::vector<Row>& rows, const Settings& settings) {
    std::vector<Series> series;
    std::vector<Tick> ticks;
    for (const Row& row : rows) {
        if (row.layers.empty()) continue;
        Series& line = series.emplace_back(Series{row.method, {}});
        for (const LayerRecord& layer : row.layers) line.values.push_back(layer.output_error);
        ticks.clear();
        for (std::size_t i = 0; i < row.layers.size(); ++i) {
            const Index block = row.layers[i].block;
            if (i == 0 || row.layers[i - 1].block != block)
                ticks.push_back({i, "block " + std::to_string(block)});
        }
    }
    write_line_chart(
        settings.plot,
        "Output error of each linear layer, " + std::to_string(settings.solve.grid.bits) + " bits",
        "|Q x - W x_fp| / |W x_fp|", series, ticks);
}

}  // namespace

int main(int argc, char** argv) {
    Eigen::setNbThreads(1);  // windows and blocks run in parallel, not the products within them
    CLI::App app("Quantizes a Llama-architecture language model and measures its perplexity.",
                 "llama_quantize");
#ifdef RESIDUA_MPI
    const residua::MPIEnvironment environment(argc, argv);
#endif
    Ranks ranks;
    const bool speaks = ranks.rank() == 0;
    Settings settings;
    try {  // all ranks read the same arguments, and end alike
        settings = parse_settings(app, argc, argv);
    } catch (const CLI::ParseError& error) {
        return speaks ? app.exit(error) : error.get_exit_code();
    } catch (const std::exception& error) {
        if (speaks) std::cerr << error.what() << '\n';
        return 2;
    }
    try {
        ranks.set_timeout(std::chrono::duration<double>(settings.cooperation.timeout));
        const std::vector<Row> rows = Comparison(settings, ranks).run();
        if (!speaks) return 0;
        print(rows, settings.json);
        finish_stdout();
        if (!settings.plot.empty()) plot(rows, settings);
        const bool failed =
            std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.status != "success"; });
        bool degraded = false;
        for (const Row& row : rows) degraded |= announce_degraded(row.method, row.layers);
        return failed || (degraded && !settings.allow_degraded) ? 1 : 0;
    } catch (const std::exception& error) {
        if (ranks.size() > 1) ranks.abort(error.what());
        std::cerr << error.what() << '\n';
        return 2;
    }
}
