#pragma once

#include <algorithm>
#include <memory>
#include <numeric>

#include "../llama/runner.hpp"
#include "calibration.hpp"
#include "layer_solver.hpp"

/// Calibration in host memory: keeps the residual stream and one input of each window of this rank's, for both
/// models, and a float copy of the block that is being quantized.
class HostCalibration : public Calibration {
  public:
    /// `references`: how many of all windows go through the full-precision model too. Layers of `model` are
    /// quantized in place. All must outlive this.
    HostCalibration(llama::Model& model, const llama::Windows& windows, Index references,
                    const llama::ActivationSettings& activations, LayerSolver& solver,
                    const residua::Executor& executor, const Segments& segments)
        : model_(model),
          reference_runner_(model.config, llama::longest(windows)),
          runner_(model.config, llama::longest(windows), activations),
          solver_(solver),
          executor_(executor),
          first_segment_(segments.mine.first),
          selection_(Index(windows.size()), references, segments) {
        for (const Index i : selection_.windows)
            quantized_.push_back(runner_.embed(model, windows[std::size_t(i)]));
        reference_.assign(quantized_.begin(), quantized_.begin() + selection_.references);
    }

    const llama::Config& config() const override { return model_.config; }

    void enter(Index block) override {
        block_ = &model_.blocks[std::size_t(block)];
        reference_block_ = *block_;
        layers_ = std::make_shared<QuantizedBlock>(block_->layers.size());
        each([&](const llama::Runner& runner, const llama::Block& at, llama::Activations& a) {
            runner.enter(at, a);
        });
    }

    Index accumulate(const Readers& readers, const Kinds& kinds) override {
        const auto reader = std::ranges::find_if(block_->layers, [&](const llama::BlockLayer& layer) {
            return layer.spec.input == readers.input && layer.spec.expert == readers.expert;
        });
        return accumulate(readers, reader->spec.in, kinds);
    }

    residua::Report solve(const std::string& method, std::size_t layer) override {
        SolvedLayer solved =
            solver_.solve(method, llama::view(std::as_const(block_->layers[layer].linear.weight)));
        if (solved.report.status == residua::Status::Success) {
            if (solved.weights.rows() == 0) solved.weights = solved.layer.dequantize();
            adopt(layer, {std::move(solved.layer), std::move(solved.blocks), std::move(solved.tensors)},
                  rows_of(solved.weights));
        }
        return std::move(solved.report);
    }

    void put(std::size_t layer, StoredLayer quantized) override {
        llama::Rows weights = quantized.weights;
        if (weights.rows() == 0) weights = rows_of(quantized.integers.dequantize());
        adopt(layer, std::move(quantized), std::move(weights));
    }

    std::array<double, 2> output_errors(std::size_t layer) override {
        const llama::LayerSpec& spec = block_->layers[layer].spec;
        const Readers readers{spec.input, spec.expert};
        const llama::Linear& reference = reference_block_.layers[layer].linear;
        const llama::Linear& quantized = block_->layers[layer].linear;
        std::vector<double> difference(std::size_t(selection_.samples)), size(difference.size());
        executor_(selection_.samples, [&](Index i) {
            const auto at = std::size_t(i);
            const llama::Rows wanted = reference(*read_reference(readers, i));
            size[at] = wanted.cast<double>().squaredNorm();
            difference[at] = (quantized(*read(readers, i)) - wanted).cast<double>().squaredNorm();
        });
        return {std::accumulate(difference.begin(), difference.end(), 0.0),
                std::accumulate(size.begin(), size.end(), 0.0)};
    }

    void advance(llama::Input input) override {
        each([&](const llama::Runner& runner, const llama::Block& at, llama::Activations& a) {
            runner.advance(input, at, a);
        });
    }

    std::shared_future<std::shared_ptr<const QuantizedBlock>> leave() override {
        std::promise<std::shared_ptr<const QuantizedBlock>> there;
        there.set_value(std::move(layers_));
        return there.get_future().share();
    }

    residua::NormGains<float> fit_final_norm() override {
        each([&](const llama::Runner& runner, const llama::Block&, llama::Activations& a) {
            runner.leave(model_, a);
        });
        accumulate({llama::Input::Down}, model_.norm.size(), {.reference = true});
        const auto gains = solver_.final_norm_gains(llama::view(std::as_const(model_.head)));
        if (gains)
            model_.norm.array() *=
                Eigen::Map<const llama::Vector>(gains.values.data(), model_.norm.size()).array();
        return gains;
    }

  private:
    static constexpr Index batch_tokens = 8192;

    static llama::Rows rows_of(const residua::Matrix<float>& m) {
        return Eigen::Map<const llama::Rows>(m.data(), m.rows(), m.cols());
    }

    /// Puts a layer into the quantized model.
    void adopt(std::size_t layer, StoredLayer quantized, llama::Rows weights) {
        block_->layers[layer].linear.weight = std::move(weights);
        (*layers_)[layer] = std::move(quantized);
    }

    template <class Body>
    void each(Body body) {
        const Index references = Index(reference_.size());
        executor_(references + Index(quantized_.size()), [&](Index i) {
            if (i < references) {
                body(reference_runner_, reference_block_, reference_[std::size_t(i)]);
            } else {
                body(runner_, *block_, quantized_[std::size_t(i - references)]);
            }
        });
    }

    /// Rows of a window, or made from them.
    using SomeRows = std::shared_ptr<const llama::Rows>;

    /// Without a copy, and without a share in `rows`.
    static SomeRows shared(const llama::Rows& rows) { return {SomeRows(), &rows}; }

    /// Gives what `readers` read, of so many features, to the solver.
    Index accumulate(const Readers& readers, Index features, const Kinds& kinds) const {
        solver_.start(features);
        Index segment = 0;
        Index all = 0;
        for (Index first = 0; first < Index(quantized_.size());) {
            while (selection_.ends[std::size_t(segment)] == first) ++segment;
            Index last = first;
            Index tokens = 0;
            for (; last < selection_.ends[std::size_t(segment)] && tokens < batch_tokens; ++last)
                tokens += rows_read(readers, last);
            if (tokens > 0) {
                const auto stack = [&](bool is_wanted, auto rows_of) {
                    return is_wanted ? stacked(first, last, tokens, rows_of) : llama::Rows();
                };
                const auto stream = [](const std::vector<llama::Activations>& windows) {
                    return [&](Index i) { return shared(windows[std::size_t(i)].residual); };
                };
                const llama::Rows x = stack(true, [&](Index i) { return read(readers, i); });
                const llama::Rows x_fp =
                    stack(kinds.reference, [&](Index i) { return read_reference(readers, i); });
                const llama::Rows h = stack(kinds.stream, stream(quantized_));
                const llama::Rows h_fp = stack(kinds.stream, stream(reference_));
                TokenBatch<float> batch{.segment = first_segment_ + segment, .x = llama::view(x)};
                if (kinds.reference) batch.x_fp = llama::view(x_fp);
                if (kinds.stream) batch.stream = {llama::view(h), llama::view(h_fp)};
                solver_.accumulate(batch);
            }
            all += tokens;
            first = last;
        }
        return all;
    }

    const std::vector<Index>& tokens_of(Index expert, Index window) const {
        return quantized_[std::size_t(window)].routing.experts[std::size_t(expert)].tokens;
    }

    Index rows_read(const Readers& readers, Index window) const {
        return readers.expert == llama::every_token ? quantized_[std::size_t(window)].input.rows()
                                                    : Index(tokens_of(readers.expert, window).size());
    }

    SomeRows read(const Readers& readers, Index window) const {
        return read(readers, runner_, *block_, quantized_, window);
    }
    SomeRows read_reference(const Readers& readers, Index window) const {
        return read(readers, reference_runner_, reference_block_, reference_, window);
    }
    SomeRows read(const Readers& readers, const llama::Runner& runner, const llama::Block& block,
                  const std::vector<llama::Activations>& windows, Index window) const {
        const llama::Activations& a = windows[std::size_t(window)];
        if (readers.expert == llama::every_token) return shared(a.input);
        return std::make_shared<llama::Rows>(
            runner.expert_input(block, readers.input, readers.expert, a, tokens_of(readers.expert, window)));
    }

    /// Of windows [first, last), which have `count` rows, one below the other.
    template <class RowsOf>
    static llama::Rows stacked(Index first, Index last, Index count, RowsOf rows_of) {
        llama::Rows rows;
        Index at = 0;
        for (Index i = first; i < last; ++i) {
            const SomeRows part = rows_of(i);
            if (rows.size() == 0) rows.resize(count, part->cols());
            rows.middleRows(at, part->rows()) = *part;
            at += part->rows();
        }
        return rows;
    }

    llama::Model& model_;
    llama::Runner reference_runner_, runner_;
    LayerSolver& solver_;
    const residua::Executor& executor_;
    Index first_segment_;
    Selection selection_;
    std::vector<llama::Activations> reference_, quantized_;
    llama::Block* block_ = nullptr;  // that is being quantized
    llama::Block reference_block_;
    std::shared_ptr<QuantizedBlock> layers_;
};
