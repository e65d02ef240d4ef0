#pragma once

#include <optional>
#include <utility>

#include "../support/solvers.hpp"
#include "layer_solver.hpp"

/// LayerSolver on a backend of the library.
template <class B>
class BackendSolver : public LayerSolver {
  public:
    template <class... Arguments>
    explicit BackendSolver(SolveSettings settings, Arguments&&... arguments)
        : settings_(std::move(settings)), backend_(std::forward<Arguments>(arguments)...) {}

    void start(residua::Index in_features) override {
        moments_.reset();
        moments_.emplace(backend_, in_features);
    }

    void accumulate(const TokenBatch& batch) override {
        compiled::accumulate(*moments_, batch.x, batch.x_fp, batch.stream);
    }

    SolvedLayer solve(const std::string& method, residua::MatrixView<const float> weights) override {
        if (method == "rtn")
            return to_host(
                compiled::round_weights(backend_, weights, settings_.grid, settings_.options.group_size));
        return with_method(method, settings_, [&]<class Method>(const Method& chosen) {
            const residua::Solver<Method, float, B> solver(*moments_, settings_.options, chosen);
            return to_host(compiled::quantize(solver, weights, settings_.grid));
        });
    }

    residua::NormGains<float> final_norm_gains(residua::MatrixView<const float> head) override {
        return compiled::final_norm_gains(*moments_, head);
    }

  private:
    SolvedLayer to_host(const residua::QuantizedMatrix<float, B, residua::IntegerGrid>& q) {
        SolvedLayer solved{.report = q.report};
        if (q) solved.layer = q.to_host(backend_);
        return solved;
    }

    SolveSettings settings_;
    B backend_;
    std::optional<residua::Moments<float, B>> moments_;
};
