#pragma once

#include <algorithm>
#include <functional>
#include <future>
#include <optional>
#include <residua/distributed/broadcast_layer.hpp>
#include <stdexcept>

#include "../support/layer_record.hpp"
#include "../support/solve_settings.hpp"
#include "calibration.hpp"
#include "output.hpp"
#include "ranks.hpp"

struct Progress {
    residua::Index block = 0;
    std::string layer;
    double part = 0;       ///< of all work, 0 to 1
    double objective = 0;  ///< of the layer before
};

/// What a model is quantized with.
struct ModelMethod {
    std::string name;              ///< one of method_names()
    bool residual_stream = false;  ///< o_proj and down_proj correct what the residual stream carries
    bool final_norm = false;       ///< the last norm's weights are fitted to what the blocks became

    /// Whether layers by this method can correct the residual stream.
    static bool reads_moments(const std::string& name) { return name != "rtn" && name != "none"; }

    /// Whether anything but the errors of LayerRecord depends on the calibration tokens.
    bool reads_tokens() const { return reads_moments(name) || final_norm; }

    bool corrects_stream() const { return reads_moments(name) && residual_stream; }

    /// How many of so many windows have to go through the full-precision model too.
    residua::Index references(residua::Index windows) const {
        const bool all = needs_reference() || corrects_stream() || final_norm;
        return all ? windows : std::min(windows, Calibration::sample_windows);
    }

    bool needs_reference() const {
        return reads_moments(name) && with_method(name, {}, []<class Method>(const Method&) {
                   return Method::residuals != residua::Residuals::None;
               });
    }
};

/// Quantizes the linear layers of all blocks, one block after the other and within a block in the order of the
/// computation: q, k, v | o | gate, up | down. Blocks that `output` already holds are read from there, others are
/// written while the next one is quantized. Experts have moments of their own; one that no token reaches is rounded to
/// nearest, and its record says so. The weights of the last norm come last, where they are asked for. Throws UnsolvedLayer
/// where a layer cannot be solved.
///
/// All ranks do so together, each with some of the windows; `output` is rank 0's alone.
class ModelQuantizer {
  public:
    ModelQuantizer(ModelMethod method, Ranks& ranks, std::function<void(const Progress&)> progress)
        : method_(std::move(method)), ranks_(ranks), progress_(std::move(progress)) {}

    std::vector<LayerRecord> run(Calibration& calibration, Output* output) {
        const llama::Config& config = calibration.config();
        const bool reads_moments = ModelMethod::reads_moments(method_.name);
        const bool reads_reference = method_.needs_reference();
        records_.clear();
        total_ = config.blocks;
        std::vector<bool> done;  // asked for while nothing is being written
        for (residua::Index i = 0; i < total_; ++i)
            done.push_back(known_to_rank_0(output && output->has_block(i)));
        for (block_ = 0; block_ < total_; ++block_) {
            const bool is_done = done[std::size_t(block_)];
            const std::vector<llama::LayerSpec> layers = llama::layers_of(config, block_);
            QuantizedBlock quantized(layers.size());
            nlohmann::json degraded = nlohmann::json::object();  // by layer, for runs that go on from here
            if (is_done) {
                if (output) quantized = output->read_block(block_, degraded);
                for (auto& layer : quantized) residua::broadcast_layer(ranks_, layer.integers, 0);
            }
            calibration.enter(block_);
            for (const llama::Input input : llama::inputs) {
                std::optional<residua::Index> expert;  // whose tokens have been accumulated
                residua::Index tokens = 0;             // how many these are
                for (std::size_t i = 0; i < layers.size(); ++i) {
                    const llama::LayerSpec& layer = layers[i];
                    if (layer.input != input) continue;
                    if (!is_done && reads_moments && expert != layer.expert) {
                        expert = layer.expert;
                        tokens = of_all_ranks(calibration.accumulate(
                            {input, layer.expert},
                            {.reference = reads_reference,
                             .stream = method_.corrects_stream() && writes_stream(config, layer)}));
                    }
                    LayerRecord record{.name = llama::block_prefix(block_) + layer.name, .block = block_};
                    report(layer.name, double(i) / double(layers.size()));
                    if (is_done) {
                        record.degradation = degradation_from(degraded, layer.name);
                        calibration.put(i, std::move(quantized[i]));
                    } else {
                        const bool is_unreached = reads_moments && tokens == 0;
                        record.take_down(calibration.solve(is_unreached ? "rtn" : method_.name, i));
                        if (reads_moments && layer.expert != llama::every_token && tokens < layer.in)
                            record.degradation.expert_tokens = tokens;
                        if (!record.degradation.text().empty())
                            degraded[layer.name] = json_of(record.degradation);
                    }
                    record.output_error = output_error(calibration, i);
                    records_.push_back(record);
                }
                calibration.advance(input);
            }
            const auto leaving = calibration.leave();
            if (output && !is_done) write(*output, leaving, std::move(degraded));
        }
        if (writing_.valid()) writing_.get();
        if (method_.final_norm) fit_final_norm(calibration);
        report("", 0);
        return records_;
    }

  private:
    /// Whether the residual stream takes up what the layer puts out, just so.
    static bool writes_stream(const llama::Config& config, const llama::LayerSpec& layer) {
        const bool is_last = layer.input == llama::Input::Output || layer.input == llama::Input::Down;
        return is_last && layer.expert == llama::every_token && !config.output_norms;
    }

    static nlohmann::json json_of(const Degradation& d) {
        return {d.dead_inputs, d.raised_damping, d.objective, d.rounding, d.rounded_because, d.expert_tokens};
    }

    /// Its inverse, of a shard whose checksum is right.
    static Degradation degradation_from(const nlohmann::json& degraded, const std::string& layer) {
        const auto at = degraded.find(layer);
        if (at == degraded.end()) return {};
        const auto number = [&](std::size_t i) {
            return at->at(i).is_number() ? at->at(i).get<double>() : NAN;
        };
        return {.dead_inputs = residua::Index(number(0)),
                .raised_damping = number(1),
                .rounded_because = at->at(4).get<std::string>(),
                .expert_tokens = residua::Index(number(5)),
                .objective = number(2),
                .rounding = number(3)};
    }

    /// Writes the block when it is there, after the one before, in a thread of its own.
    void write(Output& output, const std::shared_future<std::shared_ptr<const QuantizedBlock>>& leaving,
               nlohmann::json degraded) {
        if (writing_.valid()) writing_.get();
        writing_ =
            std::async(std::launch::async, [&output, leaving, block = block_, notes = std::move(degraded)] {
                output.write_block(block, *leaving.get(), notes);
            });
    }

    static void fit_final_norm(Calibration& calibration) {
        const residua::NormGains<float> gains = calibration.fit_final_norm();
        if (!gains)
            throw UnsolvedLayer("residua: model.norm: " + std::string(to_string(gains.status)) +
                                ", damping " + std::to_string(gains.damping));
    }

    residua::Index of_all_ranks(residua::Index tokens) const {
        double sum[1] = {double(tokens)};
        ranks_.sum(std::span<double>(sum), residua::every_rank);
        return residua::Index(sum[0]);
    }

    bool known_to_rank_0(bool fact) const {
        double known[1] = {fact ? 1.0 : 0.0};
        ranks_.broadcast(std::span<double>(known), 0);
        return known[0] != 0;
    }

    /// |Q x - W x_fp| / |W x_fp| on windows of all ranks.
    double output_error(Calibration& calibration, std::size_t layer) const {
        auto errors = calibration.output_errors(layer);
        ranks_.sum(std::span<double>(errors), residua::every_rank);
        return std::sqrt(errors[0] / errors[1]);
    }

    void report(const std::string& layer, double part_of_block) {
        if (!progress_) return;
        progress_({.block = block_,
                   .layer = layer,
                   .part = (double(block_) + part_of_block) / double(total_),
                   .objective = records_.empty() ? 0 : records_.back().objective});
    }

    ModelMethod method_;
    Ranks& ranks_;
    std::function<void(const Progress&)> progress_;
    std::vector<LayerRecord> records_;
    std::future<void> writing_;
    residua::Index block_ = 0;
    residua::Index total_ = 0;
};
