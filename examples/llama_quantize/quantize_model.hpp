#pragma once

#include <array>
#include <functional>
#include <optional>

#include "calibration.hpp"
#include "checkpoint.hpp"

/// What became of one linear layer.
struct LayerRecord {
    std::string name;
    double output_error = 0;  ///< |Q x - W x_fp| / |W x_fp| on a sample of the calibration tokens
    double objective = 0;     ///< |(W - Q) X|^2 + 2 tr(E D' W') or |(W - Q) X|^2, what the method minimizes
    double damping = 0;
    double seconds = 0;  ///< of the solve
};

struct Progress {
    residua::Index block = 0;
    std::string layer;
    double part = 0;       ///< of all work, 0 to 1
    double objective = 0;  ///< of the layer before
};

/// Quantizes the linear layers of all blocks of `model` in place, one block after the other and within a
/// block in the order of the computation: q, k, v | o | gate, up | down. Blocks that `output` already holds
/// are read from there. Throws std::runtime_error where a layer cannot be solved.
class ModelQuantizer {
  public:
    ModelQuantizer(const std::string& method, LayerSolver& solver, const residua::Executor& executor,
                   std::function<void(const Progress&)> progress)
        : method_(method), solver_(solver), executor_(executor), progress_(std::move(progress)) {}

    std::vector<LayerRecord> run(llama::Model& model, const llama::Windows& windows,
                                 const llama::ActivationSettings& activations, const Checkpoint* output) {
        const residua::Index positions = llama::longest(windows);
        const llama::Runner reference_runner(model.config, positions);
        const llama::Runner runner(model.config, positions, activations);
        const auto count = residua::Index(windows.size());
        const auto sample = std::min(count, residua::Index(Calibration::sample_windows));
        const bool paired = needs_reference(method_);
        Calibration calibration(model, windows, paired ? count : sample, reference_runner, runner, executor_);
        records_.clear();
        total_ = model.config.blocks;
        for (block_ = 0; block_ < total_; ++block_) {
            llama::Block& block = model.blocks[std::size_t(block_)];
            const llama::Block reference = block;
            const bool is_done = output && output->has_block(block_);
            QuantizedBlock quantized;
            if (is_done) quantized = output->read_block(block_);
            calibration.enter(reference, block);
            for (const llama::Input input : llama::inputs) {
                if (!is_done && method_ != "rtn") calibration.accumulate(solver_, paired);
                for (std::size_t i = 0; i < llama::layer_names.size(); ++i) {
                    const llama::LayerName& layer = llama::layer_names[i];
                    if (layer.input != input) continue;
                    LayerRecord record{.name = llama::block_prefix(block_) + layer.name};
                    report(layer.name, double(i) / double(llama::layer_names.size()));
                    llama::Linear& target = block.*layer.layer;
                    if (!is_done) quantized[i] = solve(target.weight, record);
                    const auto values = quantized[i].dequantize();
                    target.weight =
                        Eigen::Map<const llama::Rows>(values.data(), values.rows(), values.cols());
                    record.output_error = calibration.output_error(reference.*layer.layer, target);
                    records_.push_back(record);
                }
                calibration.advance(input, reference, block);
            }
            if (output && !is_done) output->write_block(block_, quantized);
        }
        report("", 0);
        return records_;
    }

    static bool needs_reference(const std::string& method) {
        return method != "rtn" && with_method(method, {}, []<class Method>(const Method&) {
                   return Method::residuals != residua::Residuals::None;
               });
    }

  private:
    residua::QuantizedLayer<residua::IntegerGrid> solve(const llama::Rows& weight, LayerRecord& record) {
        SolvedLayer solved = solver_.solve(method_, llama::view(weight));
        const residua::Report& r = solved.report;
        if (r.status != residua::Status::Success)
            throw std::runtime_error("residua: " + record.name + ": " + std::string(to_string(r.status)) +
                                     ", damping " + std::to_string(r.damping));
        record.objective = r.achieved().value_or(0);
        record.damping = r.damping;
        record.seconds = r.seconds.solve();
        return std::move(solved.layer);
    }

    void report(const std::string& layer, double part_of_block) {
        if (!progress_) return;
        progress_({.block = block_,
                   .layer = layer,
                   .part = (double(block_) + part_of_block) / double(total_),
                   .objective = records_.empty() ? 0 : records_.back().objective});
    }

    std::string method_;
    LayerSolver& solver_;
    const residua::Executor& executor_;
    std::function<void(const Progress&)> progress_;
    std::vector<LayerRecord> records_;
    residua::Index block_ = 0;
    residua::Index total_ = 0;
};
