#pragma once

#include <array>
#include <functional>
#include <optional>
#include <residua/distributed/broadcast_layer.hpp>
#include <stdexcept>

#include "../support/degradation.hpp"
#include "calibration.hpp"
#include "output.hpp"

/// What became of one linear layer.
struct LayerRecord {
    std::string name;
    double output_error = 0;  ///< |Q x - W x_fp| / |W x_fp| on a sample of the calibration tokens
    double objective = 0;     ///< |(W - Q) X|^2 + 2 tr(E D' W') or |(W - Q) X|^2, what the method minimizes
    double damping = 0;
    double seconds = 0;  ///< of the solve
    Degradation degradation = {};
};

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

    bool needs_reference() const {
        return reads_moments(name) && with_method(name, {}, []<class Method>(const Method&) {
                   return Method::residuals != residua::Residuals::None;
               });
    }
};

/// A layer cannot be solved, on no rank.
struct UnsolvedLayer : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Quantizes the linear layers of all blocks of `model` in place, one block after the other and within a
/// block in the order of the computation: q, k, v | o | gate, up | down. Blocks that `output` already holds
/// are read from there. The weights of the last norm come last, where they are asked for. Throws UnsolvedLayer
/// where a layer cannot be solved.
///
/// All ranks do so together, each with some of the windows; `output` is rank 0's alone.
class ModelQuantizer {
  public:
    ModelQuantizer(ModelMethod method, LayerSolver& solver, const residua::Executor& executor, Ranks& ranks,
                   const Cooperation& cooperation, std::function<void(const Progress&)> progress)
        : method_(std::move(method)),
          solver_(solver),
          executor_(executor),
          ranks_(ranks),
          cooperation_(cooperation),
          progress_(std::move(progress)) {}

    std::vector<LayerRecord> run(llama::Model& model, const llama::Windows& windows,
                                 const llama::ActivationSettings& activations, Output* output) {
        const residua::Index positions = llama::longest(windows);
        const llama::Runner reference_runner(model.config, positions);
        const llama::Runner runner(model.config, positions, activations);
        const auto count = residua::Index(windows.size());
        const auto sample = std::min(count, residua::Index(Calibration::sample_windows));
        const bool reads_moments = ModelMethod::reads_moments(method_.name);
        const bool reads_reference = method_.needs_reference();
        const bool corrects_stream = reads_moments && method_.residual_stream;
        const bool paired = reads_reference || corrects_stream || method_.final_norm;
        Calibration calibration(model, windows, paired ? count : sample, reference_runner, runner, executor_,
                                {cooperation_.segments_of(ranks_), cooperation_.segments_here(ranks_)});
        records_.clear();
        total_ = model.config.blocks;
        for (block_ = 0; block_ < total_; ++block_) {
            llama::Block& block = model.blocks[std::size_t(block_)];
            const llama::Block reference = block;
            const bool is_done = known_to_rank_0(output && output->has_block(block_));
            QuantizedBlock quantized(block.layers.size());
            nlohmann::json degraded = nlohmann::json::object();  // by layer, for runs that go on from here
            if (is_done) {
                if (output) quantized = output->read_block(block_, degraded);
                for (auto& layer : quantized) residua::broadcast_layer(ranks_, layer.integers, 0);
            }
            calibration.enter(reference, block);
            for (const llama::Input input : llama::inputs) {
                const bool writes_stream = input == llama::Input::Output || input == llama::Input::Down;
                if (!is_done && reads_moments)
                    calibration.accumulate(solver_, {.features = features_of(block, input),
                                                     .reference = reads_reference,
                                                     .stream = corrects_stream && writes_stream});
                for (std::size_t i = 0; i < block.layers.size(); ++i) {
                    const llama::LayerSpec& layer = block.layers[i].spec;
                    if (layer.input != input) continue;
                    LayerRecord record{.name = llama::block_prefix(block_) + layer.name};
                    report(layer.name, double(i) / double(block.layers.size()));
                    llama::Linear& target = block.layers[i].linear;
                    residua::Matrix<float> values;
                    if (is_done) {
                        record.degradation = degradation_from(degraded, layer.name);
                    } else {
                        SolvedLayer solved = solve(target.weight, record);
                        quantized[i] = {std::move(solved.layer), std::move(solved.blocks)};
                        values = std::move(solved.weights);
                        if (!record.degradation.text().empty())
                            degraded[layer.name] = json_of(record.degradation);
                    }
                    if (values.rows() == 0) values = quantized[i].integers.dequantize();
                    target.weight =
                        Eigen::Map<const llama::Rows>(values.data(), values.rows(), values.cols());
                    record.output_error = output_error(calibration, reference.layers[i].linear, target);
                    records_.push_back(record);
                }
                calibration.advance(input, reference, block);
            }
            if (output && !is_done) output->write_block(block_, quantized, degraded);
        }
        if (method_.final_norm) fit_final_norm(model, calibration);
        report("", 0);
        return records_;
    }

  private:
    static nlohmann::json json_of(const Degradation& d) {
        return {d.dead_inputs, d.raised_damping, d.objective, d.rounding, d.rounded_because};
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
                .objective = number(2),
                .rounding = number(3)};
    }

    SolvedLayer solve(const llama::Rows& weight, LayerRecord& record) {
        SolvedLayer solved = solver_.solve(method_.name, llama::view(weight));
        const residua::Report& r = solved.report;
        if (r.status != residua::Status::Success)
            throw UnsolvedLayer("residua: " + record.name + ": " + std::string(to_string(r.status)) +
                                ", damping " + std::to_string(r.damping) + ", dead inputs " +
                                std::to_string(r.dead_columns.size()));
        record.objective = r.achieved().value_or(0);
        record.damping = r.damping;
        record.degradation = Degradation::of(r);
        record.seconds = r.seconds.solve();
        return solved;
    }

    void fit_final_norm(llama::Model& model, Calibration& calibration) {
        calibration.leave(model);
        calibration.accumulate(solver_, {.features = model.norm.size(), .reference = true});
        const residua::NormGains<float> gains =
            solver_.final_norm_gains(llama::view(std::as_const(model.head)));
        if (!gains)
            throw UnsolvedLayer("residua: model.norm: " + std::string(to_string(gains.status)) +
                                ", damping " + std::to_string(gains.damping));
        model.norm.array() *= Eigen::Map<const llama::Vector>(gains.values.data(), model.norm.size()).array();
    }

    static residua::Index features_of(const llama::Block& block, llama::Input input) {
        for (const llama::BlockLayer& layer : block.layers)
            if (layer.spec.input == input) return layer.spec.in;
        return 0;
    }

    bool known_to_rank_0(bool fact) const {
        double known[1] = {fact ? 1.0 : 0.0};
        ranks_.broadcast(std::span<double>(known), 0);
        return known[0] != 0;
    }

    /// |Q x - W x_fp| / |W x_fp| on windows of all ranks.
    double output_error(const Calibration& calibration, const llama::Linear& reference,
                        const llama::Linear& quantized) const {
        auto errors = calibration.output_errors(reference, quantized);
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
    LayerSolver& solver_;
    const residua::Executor& executor_;
    Ranks& ranks_;
    Cooperation cooperation_;
    std::function<void(const Progress&)> progress_;
    std::vector<LayerRecord> records_;
    residua::Index block_ = 0;
    residua::Index total_ = 0;
};
