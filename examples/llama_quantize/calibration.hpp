#pragma once

#include "../llama/runner.hpp"
#include "layer_solver.hpp"

/// The calibration windows on their way through two models at once: the full-precision one and the one that
/// is being quantized. Both stop where linear layers read, so that each layer sees what its quantized
/// predecessors make of the tokens.
///
/// Keeps the residual stream and one input of each window of this rank's, for both models.
class Calibration {
  public:
    using Index = residua::Index;

    /// How the windows of all ranks are cut into segments, and which of them are this rank's.
    struct Segments {
        Index total = 1;
        residua::Share mine = {0, 1};
    };

    /// `references`: how many of all windows go through the full-precision model too. All must outlive this.
    Calibration(const llama::Model& model, const llama::Windows& windows, Index references,
                const llama::Runner& reference_runner, const llama::Runner& runner,
                const residua::Executor& executor, const Segments& segments)
        : reference_runner_(reference_runner), runner_(runner), executor_(executor), segments_(segments) {
        Index mine = 0;
        for (Index s = segments.mine.first; s < segments.mine.end(); ++s) {
            const residua::Share part = residua::share_of(Index(windows.size()), s, segments.total);
            ends_.push_back(std::size_t(mine += part.count));
            for (Index i = part.first; i < part.end(); ++i) {
                quantized_.push_back(runner.embed(model, windows[std::size_t(i)]));
                if (i < references) reference_.push_back(quantized_.back());
                sampled_ += i < Index(sample_windows);
            }
        }
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

    /// Out of the last block, through the last norm of `model`.
    void leave(const llama::Model& model) {
        each([&](const llama::Runner& runner, bool, llama::Activations& a) { runner.leave(model, a); });
    }

    /// What is accumulated besides the inputs, for which all windows must have gone through both models.
    struct Kinds {
        Index features = 0;      ///< of an input
        bool reference = false;  ///< inputs of the full-precision model
        bool stream = false;     ///< residual streams of both
    };

    /// Gives the inputs to `solver`.
    void accumulate(LayerSolver& solver, const Kinds& kinds) const {
        solver.start(kinds.features);
        Index segment = 0;
        for (std::size_t first = 0; first < quantized_.size();) {
            while (ends_[std::size_t(segment)] == first) ++segment;
            std::size_t last = first;
            Index tokens = 0;
            for (; last < ends_[std::size_t(segment)] && tokens < batch_tokens; ++last)
                tokens += quantized_[last].input.rows();
            const auto stack = [&](bool is_wanted, const auto& windows,
                                   llama::Rows llama::Activations::*rows) {
                return is_wanted ? stacked(windows, first, last, rows) : llama::Rows();
            };
            const llama::Rows x = stack(true, quantized_, &llama::Activations::input);
            const llama::Rows x_fp = stack(kinds.reference, reference_, &llama::Activations::input);
            const llama::Rows h = stack(kinds.stream, quantized_, &llama::Activations::residual);
            const llama::Rows h_fp = stack(kinds.stream, reference_, &llama::Activations::residual);
            TokenBatch batch{.segment = segments_.mine.first + segment, .x = llama::view(x)};
            if (kinds.reference) batch.x_fp = llama::view(x_fp);
            if (kinds.stream) batch.stream = {llama::view(h), llama::view(h_fp)};
            solver.accumulate(batch);
            first = last;
        }
    }

    /// |Q x - W x_fp|^2 and |W x_fp|^2 on those of the first `sample_windows` windows that are this rank's.
    std::array<double, 2> output_errors(const llama::Linear& reference,
                                        const llama::Linear& quantized) const {
        const std::size_t count = sampled_;
        std::vector<double> difference(count), size(count);
        executor_(Index(count), [&](Index i) {
            const auto at = std::size_t(i);
            const llama::Rows wanted = reference(reference_[at].input);
            size[at] = wanted.cast<double>().squaredNorm();
            difference[at] = (quantized(quantized_[at].input) - wanted).cast<double>().squaredNorm();
        });
        return {std::accumulate(difference.begin(), difference.end(), 0.0),
                std::accumulate(size.begin(), size.end(), 0.0)};
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

    /// Rows of windows [first, last), one window below the other.
    static llama::Rows stacked(const std::vector<llama::Activations>& windows, std::size_t first,
                               std::size_t last, llama::Rows llama::Activations::*member) {
        Index tokens = 0;
        for (std::size_t i = first; i < last; ++i) tokens += (windows[i].*member).rows();
        llama::Rows rows(tokens, (windows[first].*member).cols());
        Index at = 0;
        for (std::size_t i = first; i < last; ++i) {
            const llama::Rows& part = windows[i].*member;
            rows.middleRows(at, part.rows()) = part;
            at += part.rows();
        }
        return rows;
    }

    const llama::Runner& reference_runner_;
    const llama::Runner& runner_;
    const residua::Executor& executor_;
    Segments segments_;
    std::vector<std::size_t> ends_;  // of each segment here, in windows
    std::size_t sampled_ = 0;
    std::vector<llama::Activations> reference_, quantized_;
};
