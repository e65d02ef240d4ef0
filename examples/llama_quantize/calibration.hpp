#pragma once

#include "../llama/runner.hpp"
#include "layer_solver.hpp"

/// The calibration windows on their way through two models at once: the full-precision one and the one that
/// is being quantized. Both stop where linear layers read, so that each layer sees what its quantized
/// predecessors make of the tokens.
///
/// Keeps the residual stream and one input of each window, for both models.
class Calibration {
  public:
    using Index = residua::Index;

    /// `references`: how many windows go through the full-precision model too. All must outlive this.
    Calibration(const llama::Model& model, const llama::Windows& windows, Index references,
                const llama::Runner& reference_runner, const llama::Runner& runner,
                const residua::Executor& executor)
        : reference_runner_(reference_runner), runner_(runner), executor_(executor) {
        for (const auto& window : windows) quantized_.push_back(runner.embed(model, window));
        reference_.assign(quantized_.begin(), quantized_.begin() + references);
    }

    void enter(const llama::Block& reference, const llama::Block& quantized) {
        each([&](const llama::Runner& runner, bool is_reference, llama::Activations& a) {
            runner.enter(is_reference ? reference : quantized, a);
        });
    }

    void advance(llama::Input input, const llama::Block& reference, const llama::Block& quantized) {
        each([&](const llama::Runner& runner, bool is_reference, llama::Activations& a) {
            runner.advance(input, is_reference ? reference : quantized, a);
        });
    }

    /// Gives the inputs to `solver`; if `paired`, with those of the full-precision model, through which all
    /// windows must have gone.
    void accumulate(LayerSolver& solver, bool paired) const {
        const Index features = quantized_.front().input.cols();
        solver.start(features);
        std::size_t first = 0;
        while (first < quantized_.size()) {
            std::size_t last = first;
            Index tokens = 0;
            for (; last < quantized_.size() && tokens < batch_tokens; ++last)
                tokens += quantized_[last].input.rows();
            const llama::Rows x = stack(quantized_, first, last, tokens);
            const llama::Rows x_fp = paired ? stack(reference_, first, last, tokens) : llama::Rows();
            solver.accumulate(llama::view(x),
                              paired ? llama::view(x_fp) : residua::MatrixView<const float>());
            first = last;
        }
    }

    /// |Q x - W x_fp| / |W x_fp| on the windows that went through both models, at most `sample_windows` of
    /// them.
    double output_error(const llama::Linear& reference, const llama::Linear& quantized) const {
        const std::size_t count = std::min(reference_.size(), sample_windows);
        std::vector<double> difference(count), size(count);
        executor_(Index(count), [&](Index i) {
            const auto at = std::size_t(i);
            const llama::Rows wanted = reference(reference_[at].input);
            size[at] = wanted.cast<double>().squaredNorm();
            difference[at] = (quantized(quantized_[at].input) - wanted).cast<double>().squaredNorm();
        });
        return std::sqrt(std::accumulate(difference.begin(), difference.end(), 0.0) /
                         std::accumulate(size.begin(), size.end(), 0.0));
    }

    static constexpr std::size_t sample_windows = 8;

  private:
    static constexpr Index batch_tokens = 8192;

    template <class Body>
    void each(Body body) {
        const Index references = Index(reference_.size());
        executor_(references + Index(quantized_.size()), [&](Index i) {
            if (i < references) {
                body(reference_runner_, true, reference_[std::size_t(i)]);
            } else {
                body(runner_, false, quantized_[std::size_t(i - references)]);
            }
        });
    }

    static llama::Rows stack(const std::vector<llama::Activations>& windows, std::size_t first,
                             std::size_t last, Index tokens) {
        llama::Rows rows(tokens, windows[first].input.cols());
        Index at = 0;
        for (std::size_t i = first; i < last; ++i) {
            rows.middleRows(at, windows[i].input.rows()) = windows[i].input;
            at += windows[i].input.rows();
        }
        return rows;
    }

    const llama::Runner& reference_runner_;
    const llama::Runner& runner_;
    const residua::Executor& executor_;
    std::vector<llama::Activations> reference_, quantized_;
};
