#pragma once

#include <optional>
#include <residua/distributed/distributed_quantizer.hpp>
#include <utility>

#include "../support/solvers.hpp"
#include "layer_solver.hpp"

/// Quantizes the layers that read one input on a backend of the library: the moments of all ranks are summed up on
/// each of them, and rows are shared.
template <class B>
class GroupSolver {
  public:
    using Quantized = residua::QuantizedMatrix<float, B, residua::IntegerGrid>;

    template <class... Arguments>
    GroupSolver(SolveSettings settings, Ranks& ranks, const Cooperation& cooperation,
                Arguments&&... arguments)
        : settings_(std::move(settings)),
          ranks_(ranks),
          cooperation_(cooperation),
          backend_(std::forward<Arguments>(arguments)...) {}

    B& backend() { return backend_; }
    const Ranks& ranks() const { return ranks_; }
    const Cooperation& cooperation() const { return cooperation_; }

    /// Forgets the tokens so far; `in_features` features of another input come next.
    void start(residua::Index in_features) {
        moments_.reset();
        shards_.reset();
        shards_.emplace(
            backend_, in_features,
            typename Shards::Segments{cooperation_.segments_of(ranks_), cooperation_.segments_here(ranks_)});
    }

    template <class In>
    void accumulate(const TokenBatch<In>& batch) {
        compiled::accumulate(shards_->open(batch.segment), batch.x, batch.x_fp, batch.stream);
    }

    /// Quantizes weights (out, in_features) by one of method_names().
    SolvedLayer solve(const std::string& method, residua::MatrixView<const float> weights) {
        if (method == "rtn") return to_host(rounded(weights));
        const Sums& all = moments();
        residua::DistributedQuantizer quantizer(backend_, ranks_, {.reduction = reduction()});
        return with_method(method, settings_, [&]<class Method>(const Method& chosen) {
            auto solved = quantizer.template quantize_layer<float>(
                all, weights, settings_.grid, settings_.options, Method::residuals,
                [&](const Sums& sums, residua::MatrixView<const float> rows, residua::Index first) {
                    const residua::Solver<Method, float, B> solver(sums, settings_.options, chosen);
                    return compiled::quantize_rows(solver, rows, first, settings_.grid);
                });
            return SolvedLayer{std::move(solved.report), std::move(solved.layer)};
        });
    }

    /// Whether this rank has all rows of what it solves.
    bool is_alone() const { return ranks_.size() == 1 && !cooperation_.ordered; }

    /// The same where the backend keeps it, of a rank that is alone.
    Quantized solve_here(const std::string& method, residua::MatrixView<const float> weights) {
        if (method == "rtn") return rounded(weights);
        return with_method(method, settings_, [&]<class Method>(const Method& chosen) {
            const residua::Solver<Method, float, B> solver(moments(), settings_.options, chosen);
            return compiled::quantize_rows(solver, weights, 0, settings_.grid);
        });
    }

    /// For tokens of both models behind the last norm, and the output layer (vocabulary, in_features).
    residua::NormGains<float> final_norm_gains(residua::MatrixView<const float> head) {
        return compiled::final_norm_gains(moments(), head);
    }

  private:
    using Shards = residua::ShardedMoments<float, B>;
    using Sums = residua::Moments<float, B>;

    residua::Reduction reduction() const {
        return cooperation_.ordered ? residua::Reduction::Ordered : residua::Reduction::Fast;
    }

    /// Of all ranks' tokens.
    const Sums& moments() {
        if (!moments_) moments_ = residua::reduce(*shards_, ranks_, residua::every_rank, reduction());
        return *moments_;
    }

    Quantized rounded(residua::MatrixView<const float> weights) {
        return compiled::round_weights(backend_, weights, settings_.grid, settings_.options.group_size);
    }

    SolvedLayer to_host(const Quantized& q) {
        SolvedLayer solved{.report = q.report};
        if (q) solved.layer = q.to_host(backend_);
        return solved;
    }

    SolveSettings settings_;
    Ranks& ranks_;
    Cooperation cooperation_;
    B backend_;
    std::optional<Shards> shards_;  // of this rank's tokens
    std::optional<Sums> moments_;   // of all, once a layer is to be solved
};
