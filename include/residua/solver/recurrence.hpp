#pragma once

#include <algorithm>
#include <optional>
#include <utility>

#include "residua/grids/group_size.hpp"
#include "residua/solver/factorization.hpp"
#include "residua/solver/quantized_matrix.hpp"
#include "residua/solver/refiner.hpp"
#include "residua/solver/residual_sums.hpp"
#include "residua/solver/swept_columns.hpp"

namespace residua::detail {

/// The recurrence that all methods share (methods/method.hpp), for whole layers:
///
///     c_k = w_k + G_k / R_kk,   G_k = sum_{i<k} f_i R_ik + sum_i a_i M_ik + alpha_h (D_h R^-T)_k,
///                               f_i = w_i - s_i
///
/// Output rows are independent and taken in slabs. The sums are split at panel and block boundaries: a panel
/// starts with one product over all columns before it, a block inside it is swept by the backend and then
/// added to the rest of its panel. Every product thus has at least a block's width, and only two panels of
/// sums are kept.
template <Method M, Real T, Backend<T> B, Grid<T> G>
class Recurrence {
  public:
    Recurrence(const M& method, const G& grid, const SolverOptions& options,
               const Factorization<T, B>& factorization)
        : method_(method),
          grid_(grid),
          options_(options),
          f_(factorization),
          n_(factorization.in_features()),
          groups_(detail::group_layout(factorization.order(), options, detail::family_of(grid))) {}

    /// Makes the n x n matrices of the method, which all solves with this factorization share.
    void prepare(Index out_features) {
        if constexpr (forwards) residuals_before_ = f_.residuals_before();
        if (shifts || (forwards && refines())) {
            known_ = {f_, options_.stream_alpha, out_features};
        } else {
            known_ = {f_, options_.stream_alpha};
        }
        if (nested || (ClipSearch(grid_.clip).by_loss() && !groups_.members.empty())) weigh_columns();
    }

    /// Fills `result` with codes and parameters, or with the status that says why not. `first_row`: of the layer, the
    /// first one of `weights`.
    template <Element In>
    void run(MatrixView<const In> weights, Index first_row, QuantizedMatrix<T, B, G>& result) {
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
            status = solve_slab(backend, weights.row_range(first, rows), first_row + first);
            const MatrixView<Code> codes = result.codes.view().row_range(first, rows);
            backend.store_columns(std::as_const(codes_).view().block(0, 0, n_, rows), f_.order(), codes);
            if (refiner_ && status == Status::Success) {
                const auto swept = backend.timestamp();
                status = refine_slab(codes, result.report.refinement);
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
    static constexpr bool forwards = M::residuals == Residuals::OfColumnsBefore;
    static constexpr bool shifts = M::residuals == Residuals::OfAllColumns;
    static constexpr bool nested = TwoLevelGrid<G, T>;
    using Matrix = typename B::template Matrix<T>;

    /// Columns of a panel, the blocks whose sums are kept together: whole blocks, 512 columns where they fit.
    static constexpr Index panel_width(Index block_size) {
        constexpr Index columns = 512;
        return block_size < columns ? columns / block_size * block_size : block_size;
    }

    bool refines() const { return options_.refinement.rounds > 0; }

    /// Whether some of the sums are known before the first column.
    bool knows_sums() const { return shifts || (f_.stream_cross().data && options_.stream_alpha > 0); }

    /// a_i = alpha w_i where v_i = w_i.
    T alpha() const {
        if constexpr (M::residuals == Residuals::None) return T(0);
        if constexpr (M::residuals != Residuals::None) return method_.residual(T(1), T(1));
    }

    void allocate(B& backend, Index rows) {
        const Index panel = longest_reach();
        columns_ = backend.template workspace<T>(n_, rows);
        sums_ = backend.template workspace<T>(panel, rows);
        swept_ = {backend, n_, rows};
        if constexpr (forwards) {
            residual_ = backend.template workspace<T>(n_, rows);
            swept_residuals_ = {backend, n_, rows};
        }
        if (knows_sums()) known_sums_ = backend.template workspace<T>(n_, rows);
        if (knows_sums() && (forwards || !refines()) && !groups_.members.empty())
            target_ = backend.template workspace<T>(n_, rows);
        codes_ = backend.template allocate<Code>(n_, rows);
        scales_ = backend.template workspace<T>(groups_.count, rows);
        zeros_ = backend.template workspace<T>(groups_.count, rows);
        flags_ = backend.template allocate<Code>(1, 3);
        if (nested && !groups_.ranges.empty()) family_ = backend.template workspace<T>(widest_family(), rows);
        if (!searched().empty()) shared_ = backend.template workspace<T>(2, rows);
        if (refines())
            refiner_.emplace(grid_, options_.refinement, options_.block_size, f_, groups_.of_column, rows);
    }

    /// R_kk^2, over their mean: what an error of column k costs once all columns behind it have made up for it.
    void weigh_columns() {
        B& backend = f_.backend();
        std::vector<T> weights = backend.diagonal(f_.factor());
        double sum = 0;
        for (const T r : weights) sum += double(r) * double(r);
        for (T& w : weights) w = static_cast<T>(double(w) * double(w) * double(n_) / sum);
        weights_ = backend.template allocate<T>(1, n_);
        backend.write(weights, weights_.view());
    }

    Index widest_family() const {
        Index widest = 0;
        for (const GroupRange& range : groups_.ranges) widest = std::max(widest, range.end - range.begin);
        return widest;
    }

    /// End of the columns whose sums a step over [begin, end) must know: groups that start in it may end
    /// later.
    Index reach(Index begin, Index end) const {
        return std::max(end_of(fits_in(begin, end), end), searched_reach(begin, end));
    }
    Index searched_reach(Index begin, Index end) const {
        return end_of(those_in(searched(), begin, end), end);
    }
    static Index end_of(std::span<const GroupRange> ranges, Index least) {
        return ranges.empty() ? least : std::max(least, ranges.back().end);
    }

    /// Groups of fitted families whose codes are searched when their first column comes up.
    std::span<const GroupRange> searched() const {
        if (!nested || groups_.ranges.empty() || !ClipSearch(grid_.clip).by_loss()) return {};
        return groups_.groups;
    }

    Index longest_reach() const {
        Index longest = 0;
        for (Index begin = 0; begin < n_; begin += panel_) {
            longest = std::max(longest, reach(begin, std::min(n_, begin + panel_)) - begin);
        }
        return longest;
    }

    /// Those of the ranges, or of the families to fit, whose first column is in [begin, end).
    static std::span<const GroupRange> those_in(std::span<const GroupRange> ranges, Index begin, Index end) {
        const auto before = [](const GroupRange& range, Index column) { return range.begin < column; };
        const auto from = std::lower_bound(ranges.begin(), ranges.end(), begin, before);
        const auto to = std::lower_bound(from, ranges.end(), end, before);
        return {from, to};
    }
    std::span<const GroupRange> fits_in(Index begin, Index end) const {
        return those_in(groups_.ranges, begin, end);
    }

    /// A block ends where it is full and, as families are fitted between blocks, where one begins.
    Index end_of_block(Index begin, Index panel_end) const {
        const Index end = std::min(panel_end, begin + options_.block_size);
        if constexpr (!nested) return end;
        const auto families = fits_in(begin + 1, end);
        return families.empty() ? end : families.front().begin;
    }

    template <Element In>
    Status solve_slab(B& backend, MatrixView<const In> weights, Index first) {
        const Index rows = weights.rows;
        const MatrixView<T> columns = columns_.view().block(0, 0, n_, rows);
        const MatrixView<Code> flags = flags_.view();
        backend.set_zero(flags);
        backend.load_columns(weights, f_.order(), columns, flags.data);
        start_slab(backend, columns, first);
        swept_.start(columns);
        if constexpr (forwards) swept_residuals_.start(residual_.view().block(0, 0, n_, rows));

        for (Index begin = 0; begin < n_; begin += panel_) {
            const Index end = std::min(n_, begin + panel_);
            start_panel(backend, columns.cols, begin, reach(begin, end));
            for (Index k = begin, stop = begin; k < end; k = stop) {
                stop = end_of_block(k, end);
                sweep_block(backend, columns, begin, k, stop, reach(begin, end));
                if (!advance(stop - k)) return Status::Cancelled;
            }
            if (end == n_) break;
            swept_.extend(end);
            if constexpr (forwards) swept_residuals_.extend(end);
        }
        const std::vector<Code> raised = backend.read(flags);
        if (raised[0] != 0) return Status::NonFiniteWeights;
        if (raised[2] != 0) return Status::NonFiniteMoments;
        if (raised[1] != 0) return Status::Overflow;
        return Status::Success;
    }

    /// Sums that are known beforehand, grids that do not wait for their first column, and the target of the
    /// refinement. `first`: the slab's first output row.
    void start_slab(B& backend, MatrixView<T> columns, Index first) {
        const bool per_channel = options_.group_size == SolverOptions::per_channel;
        const bool stale = options_.published.scales == GroupScales::Stale && per_channel;
        if (stale) fit_all(backend, columns);
        for (const Index p : f_.dead_positions()) backend.clear_row(columns, p);
        const auto part = [&](Matrix& matrix) { return matrix.view().block(0, 0, n_, columns.cols); };
        Code* const flag = flags_.view().data + 2;
        if (knows_sums()) known_.sum(shifts ? alpha() : T(0), columns, first, flag, part(known_sums_));
        if (refiner_) make_target(backend, columns, first, refiner_->target().block(0, 0, n_, columns.cols));
        if (!stale) fit_all(backend, early_target(backend, columns));
        if constexpr (requires { requires M::first_column_alone; })
            start_with_first_column(backend, part(known_sums_));
    }

    /// The weights W* that the method approaches, a_i as if v_i = w_i: the refinement's target.
    void make_target(B& backend, MatrixView<const T> columns, Index first, MatrixView<T> target) {
        if (forwards) {
            known_.sum(alpha(), columns, first, flags_.view().data + 2, target);
        } else if (knows_sums()) {
            backend.copy(std::as_const(known_sums_).view().block(0, 0, n_, columns.cols), target);
        } else {
            return backend.copy(columns, target);
        }
        known_.complete(columns, target);
    }

    /// What grids that are fitted beforehand see: W* by the sums that are known then.
    MatrixView<const T> early_target(B& backend, MatrixView<const T> columns) {
        if (!knows_sums() || groups_.members.empty()) return columns;
        if (refiner_ && !forwards) return refiner_->target().block(0, 0, n_, columns.cols);
        const MatrixView<T> target = target_.view().block(0, 0, n_, columns.cols);
        backend.copy(std::as_const(known_sums_).view().block(0, 0, n_, columns.cols), target);
        known_.complete(columns, target);
        return target;
    }

    /// For c_1 = w_1 + (W D)_1 / H_11: as W D = (W M) R', G_1 = R_11 / H_11 sum_k (W M)_k R_1k.
    void start_with_first_column(B& backend, MatrixView<T> sums) {
        const MatrixView<const T> r = f_.factor();
        const T r_11 = backend.diagonal(r.block(0, 0, 1, 1)).front();
        const T h_11 = f_.gram().diagonal().front();
        Matrix first = backend.template workspace<T>(1, sums.cols);
        backend.multiply(r_11 / h_11, Transpose::No, r.row_range(0, 1), MatrixView<const T>(sums), T(0),
                         first.view());
        backend.copy(std::as_const(first).view(), sums.row_range(0, 1));
    }

    /// The codes of a slab, `stored` (rows, in_features) in the original order, and its scales.
    Status refine_slab(MatrixView<Code> stored, std::vector<RefinementStep>& steps) {
        const Index rows = stored.rows;
        const auto part = [&](auto& matrix) { return matrix.view().block(0, 0, matrix.rows(), rows); };
        const auto goes_on = [&](Index columns) { return advance(columns); };
        const bool done =
            refiner_->run(stored, part(scales_), part(zeros_), part(columns_), part(codes_), steps, goes_on);
        return done ? Status::Success : Status::Cancelled;
    }

    /// Reports that so many columns more are done. Whether to go on.
    bool advance(Index columns) {
        progress_.done += columns;
        return !options_.progress || options_.progress(progress_);
    }

    void fit_all(B& backend, MatrixView<const T> columns) {
        if (groups_.members.empty()) return;
        const Index rows = columns.cols;
        backend.fit(grid_, columns, MatrixView<const T>(weights_.view()), groups_.members,
                    scales_.view().block(0, 0, groups_.count, rows),
                    zeros_.view().block(0, 0, groups_.count, rows));
    }

    /// Fits the groups of a family to w + y, y R = G over its columns, with G as it is at the first of them.
    void fit_family(B& backend, const GroupRange& family, MatrixView<const T> columns,
                    MatrixView<const T> sums) {
        const Index width = family.end - family.begin;
        const Index rows = columns.cols;
        const MatrixView<T> current = family_.view().block(0, 0, width, rows);
        backend.copy(sums, current);
        backend.solve_upper_transposed(f_.factor().block(family.begin, family.begin, width, width), current);
        backend.add(columns.row_range(family.begin, width), current);
        std::vector<std::vector<Index>> members;
        for (Index k = 0; k < width; ++k) {
            const Index group = groups_.of_position[static_cast<std::size_t>(family.begin + k)] - family.id;
            if (group >= static_cast<Index>(members.size()))
                members.resize(static_cast<std::size_t>(group + 1));
            members[static_cast<std::size_t>(group)].push_back(k);
        }
        const auto groups_of = [&](Matrix& matrix) {
            return matrix.view().block(family.id, 0, static_cast<Index>(members.size()), rows);
        };
        const MatrixView<const T> weights = std::as_const(weights_).view().block(0, family.begin, 1, width);
        if (searched().empty())
            return backend.fit(grid_, MatrixView<const T>(current), weights, members, groups_of(scales_),
                               groups_of(zeros_));
        if constexpr (nested)
            backend.fit(grid_, MatrixView<const T>(current), weights, members, groups_of(scales_),
                        groups_of(zeros_), shared_.view().block(0, 0, 2, rows));
    }

    /// Sums over all columns before the panel, and those known beforehand, for the columns that the panel needs
    /// to know.
    void start_panel(B& backend, Index rows, Index begin, Index reach) {
        const Index width = reach - begin;
        const MatrixView<T> sums = sums_.view().block(0, 0, width, rows);
        if (knows_sums()) backend.copy(std::as_const(known_sums_).view().block(begin, 0, width, rows), sums);
        swept_.multiply(Transpose::Yes, f_.factor().block(0, begin, begin, width), T(knows_sums() ? 1 : 0),
                        sums);
        if constexpr (forwards) {
            swept_residuals_.multiply(Transpose::No, residuals_before_.block(begin, 0, width, begin), T(1),
                                      sums);
        }
    }

    /// Quantizes columns [begin, end) of the panel that starts at `panel` and adds them to the sums of its
    /// rest.
    void sweep_block(B& backend, MatrixView<T> columns, Index panel, Index begin, Index end,
                     Index panel_reach) {
        const Index rows = columns.cols;
        const Index block_reach = nested ? searched_reach(begin, end) : reach(begin, end);
        const auto sums = [&](Index from, Index to) {
            return sums_.view().block(from - panel, 0, to - from, rows);
        };
        if constexpr (nested) {
            for (const GroupRange& family : fits_in(begin, end))
                fit_family(backend, family, columns, sums(family.begin, family.end));
        }
        SweepBlock<T> block;
        block.begin = begin;
        block.end = end;
        block.reach = block_reach;
        block.columns = columns;
        block.sums = sums(begin, block_reach);
        block.factor = f_.factor();
        block.codes = codes_.view().block(0, 0, n_, rows);
        block.scales = scales_.view().block(0, 0, groups_.count, rows);
        block.zeros = zeros_.view().block(0, 0, groups_.count, rows);
        block.fits = nested ? those_in(searched(), begin, end) : fits_in(begin, end);
        if (!searched().empty()) block.shared = std::as_const(shared_).view().block(0, 0, 2, rows);
        block.group_of = groups_.of_position;
        block.published = options_.published;
        block.overflow = flags_.view().data + 1;
        if constexpr (forwards) {
            block.residuals = residual_.view().block(0, 0, n_, rows);
            block.residual_matrix = residuals_before_;
        }
        backend.sweep(method_, grid_, block);

        if (end == panel_reach) return;
        const auto swept = [&](MatrixView<const T> view) { return view.row_range(begin, end - begin); };
        backend.multiply(T(1), Transpose::Yes, f_.factor().block(begin, end, end - begin, panel_reach - end),
                         swept(columns), T(1), sums(end, panel_reach));
        if constexpr (forwards) {
            backend.multiply(T(1), Transpose::No,
                             residuals_before_.block(end, begin, panel_reach - end, end - begin),
                             swept(block.residuals), T(1), sums(end, panel_reach));
        }
    }

    const M& method_;
    const G& grid_;
    const SolverOptions& options_;
    const Factorization<T, B>& f_;
    Index n_;
    Index panel_ = panel_width(options_.block_size);
    detail::GroupLayout groups_;
    Progress progress_;

    MatrixView<const T> residuals_before_;  // M', strictly below the diagonal
    ResidualSums<T, B> known_;              // where all a are known, and of the residual stream

    Matrix columns_;     // (in_features, rows) w, then f
    Matrix residual_;    // (in_features, rows) a
    Matrix known_sums_;  // (in_features, rows) what of G is known beforehand
    Matrix sums_;        // (panel, rows) G
    Matrix target_;      // (in_features, rows) W* for grids fitted beforehand
    Matrix family_;      // (widest family, rows) weights that a family is fitted to
    Matrix shared_;      // (2, rows) what the family in work shares, where it is searched
    Matrix weights_;     // (1, in_features) of errors, where a fit asks for them
    Matrix scales_;      // (groups, rows)
    Matrix zeros_;       // (groups, rows)
    typename B::template Matrix<Code> codes_;  // (in_features, rows)
    typename B::template Matrix<Code>
        flags_;  // weights are not finite, compensation overflowed, D_h is not finite

    SweptColumns<T, B> swept_, swept_residuals_;  // f and a
    std::optional<Refiner<T, B, G>> refiner_;
};

}  // namespace residua::detail
