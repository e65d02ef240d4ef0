#pragma once

#include <functional>
#include <mutex>

#include "runner.hpp"

namespace llama {

/// -sum log p(next token) over the predictions of one window.
inline double negative_log_likelihood(const Runner& runner, const Model& model,
                                      std::span<const Token> tokens) {
    constexpr Index rows_at_once = 128;
    Activations a = runner.embed(model, tokens);
    for (const Block& block : model.blocks) runner.run(block, a);
    const Index predictions = a.residual.rows() - 1;
    double sum = 0;
    for (Index first = 0; first < predictions; first += rows_at_once) {
        const Index count = std::min(rows_at_once, predictions - first);
        const Rows logits = runner.logits(model, a.residual, first, count);
        for (Index t = 0; t < count; ++t) {
            const auto row = logits.row(t).array();
            const float top = row.maxCoeff();
            const Token next = tokens[std::size_t(first + t + 1)];
            sum += std::log(double((row - top).exp().sum())) + double(top - row(next));
        }
    }
    return sum;
}

/// Sums over predictions.
struct Loss {
    double sum = 0;  ///< -sum log p(next token)
    double predictions = 0;

    double perplexity() const { return std::exp(sum / predictions); }
};

/// Over all windows, every one on its own, windows in parallel. `progress(done)` is called from any thread, one
/// call at a time.
inline Loss loss(const Runner& runner, const Model& model, const Windows& windows,
                 const residua::Executor& executor, const std::function<void(Index)>& progress = {}) {
    std::vector<double> losses(windows.size());
    std::mutex mutex;
    Index done = 0;
    executor(Index(windows.size()), [&](Index i) {
        losses[std::size_t(i)] = negative_log_likelihood(runner, model, windows[std::size_t(i)]);
        const std::lock_guard lock(mutex);
        ++done;
        if (progress) progress(done);
    });
    Loss total;
    for (std::size_t i = 0; i < windows.size(); ++i) {
        total.sum += losses[i];
        total.predictions += double(windows[i].size()) - 1;
    }
    return total;
}

/// exp of the mean over all predictions.
inline double perplexity(const Runner& runner, const Model& model, const Windows& windows,
                         const residua::Executor& executor, const std::function<void(Index)>& progress = {}) {
    return loss(runner, model, windows, executor, progress).perplexity();
}

}  // namespace llama
