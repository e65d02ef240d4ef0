#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "residua/methods/methods.hpp"
#include "residua/solver/moments.hpp"
#include "residua/solver/objective.hpp"
#include "residua/solver/quantized_matrix.hpp"
#include "residua/solver/recurrence.hpp"
#include "residua/solver/refine.hpp"
#include "residua/solver/round_weights.hpp"

namespace residua {

/// Quantizes the weights of linear layers, given the moments of their inputs.
///
/// Every method is the one recurrence of methods/method.hpp. With H = R R', R upper triangular, M = D R^-T and
/// columns in the order of quantization:
///
///     c_k = w_k + (sum_{i<k} (w_i - s_i) R_ik + sum_i a_i M_ik) / R_kk,   q_k = Q(c_k)
///
/// Moments with the residual stream add alpha_h (D_h R^-T)_k to the sums of every method, see
/// SolverOptions::stream_alpha.
///
/// A complete program:
///
///     #include <residua/residua.hpp>
///
///     residua::EigenBackend cpu;
///     residua::GPTQSolver solver(cpu, in_features);
///     solver.accumulate(residua::MatrixView(x, tokens, in_features));      // for every batch
///     auto layer = solver.quantize(residua::MatrixView(w, out_features, in_features),
///                                  residua::IntegerGrid{.bits = 4});
///     // layer.codes(i, j), layer.scales(i, g), layer.zeros(i, g) with g = layer.group_index[j]
///
/// Moments are factored at the first solve after a change, so several weights (q, k and v), grids or bit
/// widths cost one factorization; solvers with the same ordering and damping on the same Moments share it
/// too.
///
/// Several threads may call quantize() of one solver, and of solvers that share Moments, at a time if the
/// backend serves several threads (EigenBackend does); anything that is not const needs the solver to itself.
///
/// \tparam M  a Method: GPTQ, GPTAQ, ResidualComp, GPTQResidualComp, QEP, Qronos or one of your own
/// \tparam T  float or double: what moments, factor and compensation are computed in
/// \tparam B  a Backend for T
template <Method M, Real T, Backend<T> B>
class Solver {
  public:
    /// Owns its moments. `backend` must outlive the solver. Throws std::invalid_argument for unusable
    /// options.
    Solver(B& backend, Index in_features, SolverOptions options = {}, M method = {})
        : owned_(std::in_place, backend, in_features), options_(std::move(options)), method_(method) {
        validate();
    }

    /// Reads `moments`, which must outlive the solver.
    explicit Solver(const Moments<T, B>& moments, SolverOptions options = {}, M method = {})
        : shared_(&moments), options_(std::move(options)), method_(method) {
        validate();
    }
    explicit Solver(const Moments<T, B>&& moments, SolverOptions options = {}, M method = {}) = delete;

    const Moments<T, B>& moments() const { return owned_ ? *owned_ : *shared_; }
    const SolverOptions& options() const { return options_; }
    const M& method() const { return method_; }

    /// Adds a batch of activations to the solver's own moments, see Moments::accumulate.
    template <class... Views>
    void accumulate(const Views&... batch) {
        require(owned_.has_value(), "Solver::accumulate: the solver's moments are", "shared",
                "its own: accumulate into the Moments that it was made with");
        owned_->accumulate(batch...);
    }

    /// Quantizes the weights w (out_features, in_features) onto `grid`.
    ///
    /// Throws std::invalid_argument if the shape does not match, no token was accumulated, the method needs
    /// reference inputs that the moments lack, their residual stream is another layer's, or the grid has groups
    /// of another size than SolverOptions::group_size. Everything numerical is in the report.
    template <class In, Grid<T> G>
    requires Element<std::remove_const_t<In>>
    [[nodiscard]] QuantizedMatrix<T, B, G> quantize(MatrixView<In> w, const G& grid) const {
        check(read_only(w));
        check_stream(w.rows);
        return quantize_rows(w, 0, grid);
    }

    /// quantize() of some rows of a layer alone, for several to share its work: w are its output rows
    /// [first_row, first_row + w.rows).
    template <class In, Grid<T> G>
    requires Element<std::remove_const_t<In>>
    [[nodiscard]] QuantizedMatrix<T, B, G> quantize_rows(MatrixView<In> w, Index first_row,
                                                         const G& grid) const {
        const auto weights = read_only(w);
        check(weights);
        const Index stream_width = moments().stream_cross().rows;
        require(first_row >= 0 && (!moments().has_residual_stream() || first_row + w.rows <= stream_width),
                "Solver::quantize_rows: first_row is", first_row,
                "at least 0, the rows within the columns of the residual stream");
        const FactorizationKey key = key_for(grid);
        B& backend = moments().backend();
        const auto start = backend.timestamp();
        const auto factorization = moments().factorization(key);
        auto result = solve(weights, first_row, grid, *factorization, start);
        result.report.tokens = moments().tokens();
        if (result && options_.report_objective) {
            const auto swept = backend.timestamp();
            const auto rounded = round_weights<T>(backend, weights, grid, options_.group_size);
            const auto values =
                rounded ? detail::objectives_of_rows(moments(), weights, first_row, {&rounded, &result})
                        : detail::objectives_of_rows(moments(), weights, first_row, {&result});
            if (rounded) result.report.round_to_nearest = values.front();
            result.report.objective = values.back();
            result.report.seconds.objective = backend.seconds(swept, backend.timestamp());
        }
        return or_rounded(std::move(result), backend, weights);
    }

    /// quantize() for the last time: R takes the memory of H, and M that of D, so that a large layer needs no
    /// second pair of n x n matrices (but one more for a moment unless the ordering is Natural). Needs moments
    /// of its own, which are empty afterwards, and options without report_objective.
    template <class In, Grid<T> G>
    requires Element<std::remove_const_t<In>>
    [[nodiscard]] QuantizedMatrix<T, B, G> quantize_and_consume(MatrixView<In> w, const G& grid) {
        const auto weights = read_only(w);
        check(weights);
        const FactorizationKey key = key_for(grid);
        require(owned_.has_value(), "Solver::quantize_and_consume: the solver's moments are", "shared",
                "its own");
        check_stream(weights.rows);
        require(!options_.report_objective, "Solver::quantize_and_consume: report_objective is", "true",
                "false, for the objective needs H");
        require(M::residuals != Residuals::OfColumnsBefore || options_.refinement.rounds == 0,
                std::string("Solver::quantize_and_consume: refinement.rounds for ") + M::name + " is",
                options_.refinement.rounds, "0, for the refinement needs D where M has taken its place");
        B& backend = moments().backend();
        const Index tokens = moments().tokens();
        const auto start = backend.timestamp();
        const auto factorization = owned_->consume(key);
        auto result = solve(weights, 0, grid, *factorization, start);
        result.report.tokens = tokens;
        return or_rounded(std::move(result), backend, weights);
    }

  private:
    /// The result, or what OnFailure asks for in its place.
    template <Element In, Grid<T> G>
    QuantizedMatrix<T, B, G> or_rounded(QuantizedMatrix<T, B, G> result, B& backend,
                                        MatrixView<const In> weights) const {
        const Status why = result.report.status;
        if (options_.on_failure == OnFailure::Report || why == Status::Success || why == Status::Cancelled ||
            why == Status::NonFiniteWeights)
            return result;
        auto rounded = round_weights<T>(backend, weights, result.grid, options_.group_size);
        if (!rounded) return result;
        rounded.report = std::move(result.report);
        rounded.report.status = Status::Success;
        rounded.report.rounded_because = why;
        return rounded;
    }

    void validate() const {
        options_.validate();
        method_.validate();
    }

    /// Options with the group size that a grid of type G takes, and blocks no wider than the layer, so that sums
    /// of columns stay in range.
    template <Grid<T> G>
    SolverOptions options_for() const {
        SolverOptions options = options_;
        options.group_size = resolve_group_size<G>(options.group_size);
        options.block_size = std::min(options.block_size, moments().in_features());
        return options;
    }

    /// Throws std::invalid_argument where the options and the grid do not go together.
    template <Grid<T> G>
    FactorizationKey key_for(const G& grid) const {
        grid.validate();
        const bool follows = options_.published.scales == GroupScales::Stale ||
                             options_.published.view == ResidualView::Clamped;
        require(!(TwoLevelGrid<G, T> && follows), "SolverOptions: published is",
                "what integer grids alone have", "the default for a grid with parameters of two levels");
        return FactorizationKey(options_for<G>(), detail::family_of(grid));
    }

    template <Element In, Grid<T> G>
    QuantizedMatrix<T, B, G> solve(MatrixView<const In> weights, Index first_row, const G& grid,
                                   const Factorization<T, B>& factorization,
                                   typename B::Timestamp start) const {
        B& backend = factorization.backend();
        QuantizedMatrix<T, B, G> result{.grid = grid};
        Report& report = result.report;
        report.asymmetric_target = M::residuals != Residuals::None ||
                                   (factorization.stream_cross().data && options_.stream_alpha > 0);
        report.status = factorization.status();
        report.damping = factorization.damping();
        report.damping_retries = factorization.retries();
        if constexpr (requires { backend.template product_arithmetic<T>(Index(), Index()); })
            report.products =
                backend.template product_arithmetic<T>(weights.rows, factorization.in_features());
        if (factorization.gram().is_fast()) report.factorization = report.products;
        report.dead_columns.assign(factorization.dead_columns().begin(), factorization.dead_columns().end());
        if (!result) return result;

        const SolverOptions options = options_for<G>();
        detail::Recurrence<M, T, B, G> recurrence(method_, grid, options, factorization);
        recurrence.prepare(weights.rows);
        const auto factored = backend.timestamp();
        recurrence.run(weights, first_row, result);
        const auto swept = backend.timestamp();
        report.seconds.factorize = backend.seconds(start, factored);
        report.seconds.sweep = backend.seconds(factored, swept) - report.seconds.refine;
        return result;
    }

    template <class In>
    void check(MatrixView<const In> weights) const {
        detail::require_matrix("Solver::quantize: weights", weights, moments().in_features());
        require(weights.rows >= 1, "Solver::quantize: weights has rows:", weights.rows, "at least 1");
        require(moments().tokens() >= 1, "Solver::quantize: accumulated tokens:", moments().tokens(),
                "at least 1: call accumulate(x)");
        if (M::residuals == Residuals::None || moments().has_reference()) return;
        throw std::invalid_argument(
            std::string("residua: ") + M::name +
            " needs the full-precision inputs x_fp beside x: call accumulate(x, x_fp)");
    }

    /// That all rows of a layer are those that the residual stream is of.
    void check_stream(Index rows) const {
        const Index stream_width = moments().stream_cross().rows;
        require(!moments().has_residual_stream() || rows == stream_width,
                "Solver::quantize: weights has rows:", rows,
                std::to_string(stream_width) + " (columns of the residual stream)");
    }

    std::optional<Moments<T, B>> owned_;
    const Moments<T, B>* shared_ = nullptr;
    SolverOptions options_;
    M method_;
};

/// Solvers by the names of their methods. Their arguments tell T and B, and T is float where they do not:
///
///     residua::GPTQSolver solver(cpu, in_features);          // GPTQSolver<float, EigenBackend>
///     residua::QEPSolver other(moments, {.group_size = 64});
#define RESIDUA_NAME_SOLVER(Name, M)                               \
    template <Real T, Backend<T> B>                                \
    class Name : public Solver<M, T, B> {                          \
      public:                                                      \
        using Solver<M, T, B>::Solver;                             \
    };                                                             \
    template <Backend<float> B>                                    \
    Name(B&, Index, SolverOptions = {}, M = {}) -> Name<float, B>; \
    template <Real T, Backend<T> B>                                \
    Name(const Moments<T, B>&, SolverOptions = {}, M = {}) -> Name<T, B>;
RESIDUA_NAME_SOLVER(GPTQSolver, GPTQ)
RESIDUA_NAME_SOLVER(GPTAQSolver, GPTAQ)
RESIDUA_NAME_SOLVER(ResidualCompSolver, ResidualComp)
RESIDUA_NAME_SOLVER(GPTQResidualCompSolver, GPTQResidualComp)
RESIDUA_NAME_SOLVER(QEPSolver, QEP)
RESIDUA_NAME_SOLVER(QronosSolver, Qronos)
#undef RESIDUA_NAME_SOLVER

}  // namespace residua
