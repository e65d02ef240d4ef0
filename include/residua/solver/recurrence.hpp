#pragma once

#include <algorithm>
#include <optional>
#include <utility>

#include "residua/factorization.hpp"
#include "residua/solver/quantized_matrix.hpp"
#include "residua/solver/refine.hpp"

namespace residua {

/// The recurrence that all methods share, for whole layers:
///
///     c_k = t_k + G_k / R_kk,   G_k = sum_{i<k} (t_i - s_i) R_ik,   t_k = W_k + sum_{i<k} a_i P_ik
///
/// Output rows are independent and taken in slabs. The sums are split at panel and block boundaries: a panel
/// starts with one product over all columns before it, a block inside it is swept by the backend and then
/// added to the rest of its panel. Every product thus has at least a block's width, and only two panels of
/// sums are kept.
template <Rule M, Real T, Backend<T> B, Grid<T> G>
class Recurrence {
  public:
    Recurrence(const M& rule, const G& grid, const SolverOptions& options,
               const Factorization<T, B>& factorization)
        : rule_(rule),
          grid_(grid),
          options_(options),
          f_(factorization),
          n_(factorization.factor().rows),
          groups_(group_layout(factorization.order(), options)) {}

    /// Makes the n x n matrices of the method, which all solves with this factorization share.
    void prepare(Index out_features) {
        if constexpr (M::target == Target::Forwarded) projection_ = f_.projection();
        if (M::target == Target::Shifted || (forwards && refines())) {
            // m right-hand sides unless n are fewer, or there already
            if (f_.has_shift() || out_features >= n_) {
                shift_ = f_.shift();
            } else {
                cross_transposed_ = f_.cross_transposed();
            }
        }
    }

    /// Fills `result` with codes and parameters, or with the status that says why not.
    template <Element In>
    void run(MatrixView<const In> weights, QuantizedMatrix<T, B, G>& result) {
        B& backend = f_.backend();
        const Index m = weights.rows;
        const Index slab = std::min(m, backend.slab_rows(n_, m));
        result.group_index = groups_.of_column;
        result.codes = backend.template allocate<Code>(m, n_);
        result.scales = backend.template allocate<T>(m, groups_.count);
        result.zeros = backend.template allocate<T>(m, groups_.count);
        allocate(backend, slab);

        const Refinement& refinement = options_.refinement;
        const Index visits = 1 + Index(refinement.rounds) * refinement.sweeps_per_round;
        progress_ = {0, n_ * ((m + slab - 1) / slab) * visits};
        Status& status = result.report.status;
        for (Index first = 0; first < m && status == Status::Success; first += slab) {
            const Index rows = std::min(slab, m - first);
            status = solve_slab(backend, weights.row_range(first, rows));
            const MatrixView<Code> codes = result.codes.view().row_range(first, rows);
            backend.store_columns(std::as_const(codes_).view().block(0, 0, n_, rows), f_.order(), codes);
            if (refiner_ && status == Status::Success) {
                const auto swept = backend.timestamp();
                status = refine_slab(backend, codes, result.report.refinement);
                result.report.seconds.refine += backend.seconds(swept, backend.timestamp());
            }
            backend.transpose(std::as_const(scales_).view().block(0, 0, groups_.count, rows),
                              result.scales.view().row_range(first, rows));
            backend.transpose(std::as_const(zeros_).view().block(0, 0, groups_.count, rows),
                              result.zeros.view().row_range(first, rows));
        }
        refiner_.reset();
        if (status == Status::Success) return;
        result.report.refinement.clear();
        result.codes = {};
        result.scales = {};
        result.zeros = {};
        result.group_index.clear();
    }

  private:
    static constexpr bool forwards = M::target == Target::Forwarded;
    using Matrix = typename B::template Matrix<T>;

    bool refines() const { return options_.refinement.rounds > 0; }

    void allocate(B& backend, Index rows) {
        const Index panel = longest_reach();
        columns_ = backend.template workspace<T>(n_, rows);
        feedback_ = backend.template workspace<T>(panel, rows);
        if constexpr (forwards) {
            forward_ = backend.template workspace<T>(n_, rows);
            target_ = backend.template workspace<T>(panel, rows);
        }
        if constexpr (M::target == Target::Shifted) change_ = backend.template workspace<T>(n_, rows);
        codes_ = backend.template allocate<Code>(n_, rows);
        scales_ = backend.template workspace<T>(groups_.count, rows);
        zeros_ = backend.template workspace<T>(groups_.count, rows);
        flags_ = backend.template allocate<Code>(1, 2);
        if (!refines()) return;
        refiner_.emplace(grid_, options_, f_, groups_, rows);
        if (refiner_->in_original_order()) unordered_ = backend.template workspace<T>(rows, n_);
    }

    /// End of the columns whose sums a step over [begin, end) must know: groups that start in it may end
    /// later.
    Index reach(Index begin, Index end) const {
        const auto fits = fits_in(begin, end);
        return fits.empty() ? end : std::max(end, fits.back().end);
    }

    Index longest_reach() const {
        Index longest = 0;
        for (Index begin = 0; begin < n_; begin += panel_) {
            longest = std::max(longest, reach(begin, std::min(n_, begin + panel_)) - begin);
        }
        return longest;
    }

    /// Groups whose first column is in [begin, end).
    std::span<const GroupRange> fits_in(Index begin, Index end) const {
        const auto before = [](const GroupRange& range, Index column) { return range.begin < column; };
        const auto& ranges = groups_.ranges;
        const auto from = std::lower_bound(ranges.begin(), ranges.end(), begin, before);
        const auto to = std::lower_bound(from, ranges.end(), end, before);
        return {from, to};
    }

    template <Element In>
    Status solve_slab(B& backend, MatrixView<const In> weights) {
        const Index rows = weights.rows;
        const MatrixView<T> columns = columns_.view().block(0, 0, n_, rows);
        const MatrixView<Code> flags = flags_.view();
        backend.set_zero(flags);
        backend.load_columns(weights, f_.order(), columns, flags.data);
        set_target_and_fit(backend, columns);

        for (Index begin = 0; begin < n_; begin += panel_) {
            const Index end = std::min(n_, begin + panel_);
            start_panel(backend, columns, begin, reach(begin, end));
            for (Index k = begin; k < end; k += options_.block_size) {
                const Index stop = std::min(end, k + options_.block_size);
                sweep_block(backend, columns, begin, k, stop, reach(begin, end));
                if (!advance(stop - k)) return Status::Cancelled;
            }
        }
        const std::vector<Code> raised = backend.read(flags);
        if (raised[0] != 0) return Status::NonFiniteWeights;
        if (raised[1] != 0) return Status::Overflow;
        return Status::Success;
    }

    /// Grids that do not wait for their first column see the weights before any column is quantized.
    void set_target_and_fit(B& backend, MatrixView<T> columns) {
        const bool per_channel = options_.group_size == SolverOptions::per_channel;
        const bool stale = options_.scales == GroupScales::Stale && per_channel;
        if (stale) fit_all(backend, columns);
        for (const Index p : f_.dead_positions()) backend.clear_row(columns, p);
        if constexpr (M::target == Target::Shifted) {
            const MatrixView<T> change = change_.view().block(0, 0, n_, columns.cols);
            shift(backend, columns, static_cast<T>(rule_.shift()), change);
            backend.add(MatrixView<const T>(change), columns);
        }
        if (!stale) fit_all(backend, columns);
        if (refiner_) keep_target(backend, columns);
    }

    /// The target of the refinement; forwarded targets approximate a shifted one.
    void keep_target(B& backend, MatrixView<const T> columns) {
        const MatrixView<T> target = refiner_->spare().block(0, 0, n_, columns.cols);
        if constexpr (forwards) {
            shift(backend, columns, rule_.fed_forward(T(1), T(1)), target);
            backend.add(columns, target);
        } else {
            backend.copy(columns, target);
        }
    }

    /// Codes and scales of the slab, and the codes in `stored` (rows, in_features) in the original order.
    Status refine_slab(B& backend, MatrixView<Code> stored, std::vector<RefinementStep>& steps) {
        const Index rows = stored.rows;
        const auto part = [&](auto& matrix) { return matrix.view().block(0, 0, matrix.rows(), rows); };
        const MatrixView<T> error = part(columns_);
        const MatrixView<const T> target = refiner_->spare().block(0, 0, n_, rows);
        const bool original_order = refiner_->in_original_order();
        if (original_order) {
            const MatrixView<T> unordered = unordered_.view().row_range(0, rows);
            backend.store_columns(target, f_.order(), unordered);
            backend.transpose(MatrixView<const T>(unordered), error);
            backend.transpose(MatrixView<const Code>(stored), part(codes_));
        } else {
            backend.copy(target, error);
        }
        const std::vector<Index> of_column(groups_.of_column.begin(), groups_.of_column.end());
        backend.subtract_decoded(
            grid_, MatrixView<const Code>(part(codes_)), original_order ? of_column : groups_.of_position,
            MatrixView<const T>(part(scales_)), MatrixView<const T>(part(zeros_)), error);
        const auto goes_on = [&](Index columns) { return advance(columns); };
        if (!refiner_->run(error, part(codes_), part(scales_), part(zeros_), steps, goes_on))
            return Status::Cancelled;
        if (original_order) {
            backend.transpose(MatrixView<const Code>(part(codes_)), stored);
        } else {
            backend.store_columns(MatrixView<const Code>(part(codes_)), f_.order(), stored);
        }
        return Status::Success;
    }

    /// Reports that so many columns more are done. Whether to go on.
    bool advance(Index columns) {
        progress_.done += columns;
        return !options_.progress || options_.progress(progress_);
    }

    void fit_all(B& backend, MatrixView<T> columns) {
        if (groups_.members.empty()) return;
        const Index rows = columns.cols;
        backend.fit(grid_, MatrixView<const T>(columns), groups_.members,
                    scales_.view().block(0, 0, groups_.count, rows),
                    zeros_.view().block(0, 0, groups_.count, rows));
    }

    /// alpha W D H^-1, as columns: alpha H^-1 D' W'.
    void shift(B& backend, MatrixView<const T> columns, T alpha, MatrixView<T> change) {
        const bool ready = shift_.data != nullptr;
        backend.multiply(alpha, Transpose::No, ready ? shift_ : std::as_const(cross_transposed_).view(),
                         columns, T(0), change);
        if (!ready) {
            backend.solve_upper(f_.factor(), change);
            backend.solve_upper_transposed(f_.factor(), change);
        }
    }

    /// Sums over all columns before the panel, for the columns that the panel needs to know.
    void start_panel(B& backend, MatrixView<const T> columns, Index begin, Index reach) {
        const Index width = reach - begin;
        const MatrixView<T> feedback = feedback_.view().block(0, 0, width, columns.cols);
        backend.multiply(T(1), Transpose::Yes, f_.factor().block(0, begin, begin, width),
                         columns.row_range(0, begin), T(0), feedback);
        if constexpr (forwards) {
            const MatrixView<T> target = target_.view().block(0, 0, width, columns.cols);
            backend.copy(columns.row_range(begin, width), target);
            backend.multiply(T(1), Transpose::No, projection_.block(begin, 0, width, begin),
                             std::as_const(forward_).view().block(0, 0, begin, columns.cols), T(1), target);
        }
    }

    /// Quantizes columns [begin, end) of the panel that starts at `panel` and adds them to the sums of its
    /// rest.
    void sweep_block(B& backend, MatrixView<T> columns, Index panel, Index begin, Index end,
                     Index panel_reach) {
        const Index rows = columns.cols;
        const Index block_reach = reach(begin, end);
        const auto sums = [&](auto& matrix, Index from, Index to) {
            return matrix.view().block(from - panel, 0, to - from, rows);
        };
        SweepBlock<T> block;
        block.begin = begin;
        block.end = end;
        block.reach = block_reach;
        block.columns = columns;
        block.feedback = sums(feedback_, begin, block_reach);
        block.factor = f_.factor();
        block.codes = codes_.view().block(0, 0, n_, rows);
        block.scales = scales_.view().block(0, 0, groups_.count, rows);
        block.zeros = zeros_.view().block(0, 0, groups_.count, rows);
        block.fits = fits_in(begin, end);
        block.group_of = groups_.of_position;
        block.view = options_.view;
        block.fit_on = options_.scales;
        block.overflow = flags_.view().data + 1;
        if constexpr (forwards) {
            block.target = sums(target_, begin, block_reach);
            block.forward = forward_.view().block(0, 0, n_, rows);
            block.projection = projection_;
        }
        backend.sweep(rule_, grid_, block);

        if (end == panel_reach) return;
        backend.multiply(T(1), Transpose::Yes, f_.factor().block(begin, end, end - begin, panel_reach - end),
                         MatrixView<const T>(columns.row_range(begin, end - begin)), T(1),
                         sums(feedback_, end, panel_reach));
        if constexpr (forwards) {
            backend.multiply(T(1), Transpose::No,
                             projection_.block(end, begin, panel_reach - end, end - begin),
                             MatrixView<const T>(block.forward.row_range(begin, end - begin)), T(1),
                             sums(target_, end, panel_reach));
        }
    }

    const M& rule_;
    const G& grid_;
    const SolverOptions& options_;
    const Factorization<T, B>& f_;
    Index n_;
    Index panel_ = panel_width(options_.block_size);
    GroupLayout groups_;
    Progress progress_;

    MatrixView<const T> projection_;
    MatrixView<const T> shift_;
    Matrix cross_transposed_;

    Matrix columns_;                           // (in_features, rows) W, then t - s
    Matrix forward_;                           // (in_features, rows) a
    Matrix feedback_;                          // (panel, rows) G
    Matrix target_;                            // (panel, rows) t
    Matrix change_;                            // (in_features, rows) alpha H^-1 D' W'
    Matrix scales_;                            // (groups, rows)
    Matrix zeros_;                             // (groups, rows)
    typename B::template Matrix<Code> codes_;  // (in_features, rows)
    typename B::template Matrix<Code> flags_;  // weights are not finite, compensation overflowed

    std::optional<Refiner<T, B, G>> refiner_;
    Matrix unordered_;  // (rows, in_features) in the original order
};

}  // namespace residua
