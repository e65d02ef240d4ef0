#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "residua/solver/moments.hpp"
#include "residua/solver/quantized_matrix.hpp"
#include "residua/solver/refiner.hpp"
#include "residua/solver/residual_sums.hpp"

namespace residua {

/// How refine() goes about it.
struct RefineOptions {
    double alpha = 0;         ///< of the target W + alpha W D H^-1 + ...; 0.5 for codes by QEP
    double stream_alpha = 0;  ///< ... alpha_h D_h H^-1; 0.5 for codes by a solve with the residual stream
    Refinement refinement = {.rounds = 2};  ///< rounds, and what they may change
    Damping damping = {};
    Ordering ordering = Ordering::Natural;  ///< in which columns are visited
    Index block_size = 128;                 ///< columns that are visited together; changes speed alone
    double max_dead_inputs = 0.1;           ///< as SolverOptions::max_dead_inputs

    /// Called on the calling thread as sweeps go on; `false` ends the refinement with Status::Cancelled.
    std::function<bool(const Progress&)> progress = {};

    void validate() const {
        require(alpha >= 0 && alpha <= 1, "RefineOptions: alpha is", alpha, "in [0, 1]");
        require(stream_alpha >= 0 && stream_alpha <= 1, "RefineOptions: stream_alpha is", stream_alpha,
                "in [0, 1]");
        require(block_size >= 1, "RefineOptions: block_size is", block_size, "at least 1");
        require(max_dead_inputs >= 0 && max_dead_inputs <= 1, "RefineOptions: max_dead_inputs is",
                max_dead_inputs, "a part of the columns, in [0, 1]");
        damping.validate();
        refinement.validate();
    }
};

namespace detail {

/// The groups that a layer has, as refine() needs them.
template <Real T, Backend<T> B, Grid<T> G>
void require_layer(const QuantizedMatrix<T, B, G>& layer, Index rows, Index cols) {
    require(static_cast<bool>(layer), "refine: the layer's status is", to_string(layer.report.status),
            "success");
    require(layer.codes.rows() == rows, "refine: the layer has rows:", layer.codes.rows(),
            std::to_string(rows) + " (of weights)");
    require(layer.codes.cols() == cols, "refine: the layer has columns:", layer.codes.cols(),
            std::to_string(cols) + " (in_features)");
    const Index groups = layer.scales.cols();
    require(layer.scales.rows() == rows && layer.zeros.rows() == rows && layer.zeros.cols() == groups,
            "refine: scales and zeros have columns:", groups, "the shape (rows, groups) both");
    require(static_cast<Index>(layer.group_index.size()) == cols,
            "refine: group_index has elements:", layer.group_index.size(),
            std::to_string(cols) + " (in_features)");
    for (const std::int32_t g : layer.group_index)
        require(g >= 0 && g < groups, "refine: group_index holds", g,
                "groups from 0 to " + std::to_string(groups - 1));
}

}  // namespace detail

/// Refines codes and scales of `layer`, and zeros of a TwoLevelGrid, which come from a solve, a file or another
/// method, towards `weights` (out_features, in_features) on the tokens of `moments`: a descent on tr(E H E'), E = W* - Q, that never
/// raises the objective of an output row. W* = W + (alpha W D + alpha_h D_h) H^-1; alpha > 0 needs reference
/// inputs, alpha_h = stream_alpha > 0 the residual stream.
///
/// The steps are appended to layer.report.refinement. With any other status than Success, rows that were not
/// done by then stay as they were.
///
/// Costs n^3/3 operations for the factorization, which solves with the same damping and ordering share, and
/// (1 + 2 rounds) m n^2, and refits; with alpha > 0, what QEP costs beyond GPTQ and m n^2; with alpha_h > 0
/// 2 m n^2 at most.
///
/// Throws std::invalid_argument where shapes do not match, no token was accumulated, alpha or stream_alpha asks
/// for what the moments lack, or options are unusable.
template <class In, Real T, Backend<T> B, Grid<T> G>
requires Element<std::remove_const_t<In>>
[[nodiscard]] Status refine(const Moments<T, B>& moments, MatrixView<In> weights,
                            QuantizedMatrix<T, B, G>& layer, const RefineOptions& options = {}) {
    const Index m = weights.rows;
    const Index n = moments.in_features();
    detail::require_matrix("refine: weights", read_only(weights), n);
    require(m >= 1, "refine: weights has rows:", m, "at least 1");
    require(moments.tokens() >= 1, "refine: accumulated tokens:", moments.tokens(), "at least 1");
    require(options.alpha == 0 || moments.has_reference(), "refine: alpha is", options.alpha,
            "0, for the moments have no reference inputs: call accumulate(x, x_fp)");
    const Index stream_width = moments.stream_cross().rows;
    require(options.stream_alpha == 0 || moments.has_residual_stream(), "refine: stream_alpha is",
            options.stream_alpha,
            "0, for the moments have no residual stream: call accumulate(x, x_fp, ResidualStream{h, h_fp})");
    require(options.stream_alpha == 0 || m == stream_width, "refine: weights has rows:", m,
            std::to_string(stream_width) + " (columns of the residual stream)");
    options.validate();
    detail::require_layer(layer, m, n);

    B& backend = moments.backend();
    SolverOptions key;
    key.ordering = options.ordering;
    key.damping = options.damping;
    key.max_dead_inputs = options.max_dead_inputs;
    const auto factorization = moments.factorization(FactorizationKey(key));
    if (factorization->status() != Status::Success) return factorization->status();
    const bool shifts = options.alpha > 0 || options.stream_alpha > 0;
    detail::ResidualSums<T, B> sums(*factorization, options.stream_alpha);
    if (options.alpha > 0) sums = {*factorization, options.stream_alpha, m};

    const Index groups = layer.scales.cols();
    const Index slab = std::min(m, backend.slab_rows(n, m));
    auto columns = backend.template workspace<T>(n, slab);
    auto codes = backend.template allocate<Code>(n, slab);
    auto scales = backend.template workspace<T>(groups, slab);
    auto zeros = backend.template workspace<T>(groups, slab);
    auto flags = backend.template allocate<Code>(1, 2);  // weights are not finite, D_h is not
    backend.set_zero(flags.view());
    detail::Refiner<T, B, G> refiner(layer.grid, options.refinement, options.block_size, *factorization,
                                     layer.group_index, slab);

    const Index passes = Index(options.refinement.rounds) * options.refinement.sweeps_per_round;
    Progress progress = {0, n * ((m + slab - 1) / slab) * passes};
    const auto advance = [&](Index count) {
        progress.done += count;
        return !options.progress || options.progress(progress);
    };
    std::vector<RefinementStep> steps;
    Status status = Status::Success;
    for (Index first = 0; first < m && status == Status::Success; first += slab) {
        const Index rows = std::min(slab, m - first);
        const auto part = [&](auto& matrix) { return matrix.view().block(0, 0, matrix.rows(), rows); };
        const MatrixView<T> w = part(columns);
        const MatrixView<T> target = refiner.target().block(0, 0, n, rows);
        backend.load_columns(read_only(weights).row_range(first, rows), factorization->order(), w,
                             flags.view().data);
        for (const Index p : factorization->dead_positions()) backend.clear_row(w, p);
        if (shifts) {
            sums.sum(static_cast<T>(options.alpha), w, first, flags.view().data + 1, target);
            sums.complete(w, target);
        } else {
            backend.copy(MatrixView<const T>(w), target);
        }
        const std::vector<Code> raised = backend.read(flags.view());
        if (raised[0] != 0) return Status::NonFiniteWeights;
        if (raised[1] != 0) return Status::NonFiniteMoments;
        const auto rows_of = [&](auto& matrix) { return matrix.view().row_range(first, rows); };
        backend.transpose(read_only(rows_of(layer.scales)), part(scales));
        backend.transpose(read_only(rows_of(layer.zeros)), part(zeros));
        if (!refiner.run(rows_of(layer.codes), part(scales), part(zeros), w, part(codes), steps, advance))
            status = Status::Cancelled;
        if (status != Status::Success) break;
        backend.transpose(read_only(part(scales)), rows_of(layer.scales));
        backend.transpose(read_only(part(zeros)), rows_of(layer.zeros));
    }
    if (status == Status::Success)
        layer.report.refinement.insert(layer.report.refinement.end(), steps.begin(), steps.end());
    return status;
}

}  // namespace residua
