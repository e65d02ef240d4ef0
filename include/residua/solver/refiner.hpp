#pragma once

#include <algorithm>
#include <utility>

#include "residua/solver/refine_gram.hpp"
#include "residua/solver/refine_plan.hpp"
#include "residua/solver/refine_record.hpp"

namespace residua::detail {

/// Descent from the codes of a slab of output rows on the objective that all methods approximate greedily,
///
///     tr(E H E'),   E = W* - Q,   H damped, dead columns apart, as in Factorization.
///
/// With everything else fixed, the best value of column k is q_k + (E H)_k / H_kk, and the best step of the
/// scale of a group with slopes C = dQ / dscale is C H E' / C H C'. A pass takes the groups one after the
/// other, refits the scale, rounded as it is stored, and sweeps over the group's columns; every change is
/// made only where it lowers the objective of its output row, which thus never rises (up to rounding of the
/// gradients). Zeros stay, and so do scales whose best value is not positive. Of a TwoLevelGrid, a pass takes a family
/// of groups at a time: the numbers that it shares, one after the other, then every group's codes of scale and minimum.
///
/// Without its damping the objective may rise nevertheless, by what |E|^2 shrinks. A row in which a round ends
/// above the start gets back what it had before the round, and is left alone.
///
/// Passes alternate between the orders first to last and last to first. Then the half of E H that one pass
/// must know of the columns ahead of it is what the pass before has summed up of those behind it: a pass
/// costs m n^2 operations instead of 2 m n^2, as much as GPTQ without its factorization, and m n^2 once at
/// the start. Refits add 2 m n b operations for groups of b columns, m n b if b > 128; of a TwoLevelGrid 2 m n b for
/// groups of b columns and 3/2 m n b for families of b columns, each twice with a minimum.
///
/// Columns are taken in the order of quantization, or group by group where that order scatters the groups,
/// which needs an n x n matrix of its own.
template <Real T, Backend<T> B, Grid<T> G>
class Refiner {
  public:
    using Matrix = typename B::template Matrix<T>;

    /// For slabs of up to `rows` output rows, whose column j is in group `group_of_column[j]`.
    /// `factorization` and `options` must outlive this.
    Refiner(const G& grid, const Refinement& options, Index block_size,
            const Factorization<T, B>& factorization, std::span<const std::int32_t> group_of_column,
            Index rows)
        : grid_(grid),
          options_(options),
          f_(factorization),
          b_(factorization.backend()),
          n_(factorization.in_features()),
          refits_(options_.refit_scales && (RefittableGrid<G, T> || nested)),
          order_(refits_ ? order_of_visits(factorization.order(), group_of_column, family_size())
                         : std::vector<Index>(factorization.order().begin(), factorization.order().end())),
          group_of_(groups_in(order_, group_of_column)),
          plan_(group_of_, std::min(block_size, most_columns(b_)), refits_, family_size()),
          gram_(factorization, plan_, order_) {
        outside_ = b_.template workspace<T>(n_, rows);
        fresh_ = b_.template workspace<T>(plan_.widest_panel(), rows);
        tally_ = b_.template allocate<double>(Tally::rows, rows);
        kept_codes_ = b_.template allocate<Code>(rows, n_);
        kept_scales_ = b_.template workspace<T>(group_count(), rows);
        if (is_reordered()) unordered_ = b_.template workspace<T>(rows, n_);
        if constexpr (nested) kept_zeros_ = b_.template workspace<T>(group_count(), rows);
        if (const Index widest = plan_.widest_group(); widest > 0) {
            [[maybe_unused]] const Index groups = group_count();
            slopes_ = b_.template workspace<T>(widest, rows);
            later_ = b_.template workspace<T>(widest, rows);
            own_ = b_.template workspace<T>(widest, rows);
            if constexpr (nested) {
                zero_slopes_ = b_.template workspace<T>(widest, rows);
                shared_ = b_.template workspace<T>(2, rows);
            } else {
                units_ = b_.template workspace<T>(groups, rows);
                nothing_ = b_.template workspace<T>(groups, rows);
                b_.write(std::vector<T>(static_cast<std::size_t>(groups * rows), T(1)), units_.view());
                b_.set_zero(nothing_.view());
            }
        }
    }

    /// Where run() finds the targets W* as columns (in_features, rows), in the order of quantization. It
    /// overwrites them.
    MatrixView<T> target() { return outside_.view(); }

    /// Refines the codes of one slab, `stored` (rows, in_features) in the original order, `scales` and, of a
    /// TwoLevelGrid, `zeros` (groups, rows). `columns` and `codes`, both (in_features, rows), are for its own use.
    /// Objectives and changes are added to `steps`. advance(columns) is called as sweeps go on; where it returns
    /// false, the refinement ends with `stored` as it was, and returns false.
    template <class Advance>
    bool run(MatrixView<Code> stored, MatrixView<T> scales, MatrixView<T> zeros, MatrixView<T> columns,
             MatrixView<Code> codes, std::vector<RefinementStep>& steps, Advance advance) {
        using Kind = RefinementStep::Kind;
        const Index rows = stored.rows;
        const Slab slab = {columns, codes, scales, zeros, part(outside_, rows), part(tally_, rows)};
        load(stored, slab);
        b_.set_zero(slab.tally);
        start(slab);
        const std::vector<double> objective = read_tally(slab).lowered;
        record_.start(steps, {objective, damping_part(slab)});
        bool open = true;
        for (int round = 0; round < options_.rounds && open; ++round) {
            keep(slab);
            for (int sweep = 0; sweep < options_.sweeps_per_round; ++sweep) {
                if (record_.passes() > 0) gram_.add_diagonal(plan_.blocks(), slab.error, slab.outside);
                if (!pass(slab, record_.passes() % 2 != 0, advance)) return false;
                const Counts counts = read_tally(slab);
                record_.add_pass(steps, refits_ ? Kind::RefitAndSweep : Kind::Sweep, counts.lowered,
                                 damping_part(slab), counts.changed);
            }
            restore(slab, record_.end_round(steps, options_.tolerance));
            open = record_.is_open();
            b_.write(record_.finished(), slab.tally.row_range(Tally::Finished, 1));
        }
        const Index skipped = Index(options_.rounds) * options_.sweeps_per_round - record_.passes();
        if (skipped > 0 && !advance(skipped * n_)) return false;
        record_.finish(steps);
        b_.store_columns(MatrixView<const Code>(codes), order_, stored);
        return true;
    }

  private:
    static constexpr bool nested = TwoLevelGrid<G, T>;
    using Block = RefinementPlan::Block;
    using Panel = RefinementPlan::Panel;

    struct Slab {
        MatrixView<T> error;
        MatrixView<Code> codes;
        MatrixView<T> scales;
        MatrixView<T> zeros;
        MatrixView<T> outside;
        MatrixView<double> tally;
    };
    struct Counts {
        std::vector<double> lowered;  // of each output row
        std::vector<double> changed;
    };

    /// Groups that share numbers; 0 where none do.
    Index family_size() const {
        if constexpr (nested) return grid_.family();
        return 0;
    }

    template <class AnyMatrix>
    static auto part(AnyMatrix& matrix, Index rows) {
        return matrix.view().block(0, 0, matrix.rows(), rows);
    }

    /// The order of quantization, or, where that scatters groups or families of them, the columns of one group after
    /// the other.
    static std::vector<Index> order_of_visits(std::span<const Index> order,
                                              std::span<const std::int32_t> group_of_column, Index family) {
        const std::vector<Index> groups = groups_in(order, group_of_column);
        std::vector<Index> families;
        for (const Index group : groups) families.push_back(group / std::max<Index>(1, family));
        if (!is_scattered(groups) && !is_scattered(families)) return {order.begin(), order.end()};
        std::vector<Index> visits = natural_order(static_cast<Index>(order.size()));
        std::stable_sort(visits.begin(), visits.end(), [&](Index a, Index b) {
            return group_of_column[static_cast<std::size_t>(a)] <
                   group_of_column[static_cast<std::size_t>(b)];
        });
        return visits;
    }

    static std::vector<Index> groups_in(std::span<const Index> order,
                                        std::span<const std::int32_t> group_of_column) {
        std::vector<Index> groups;
        for (const Index column : order) groups.push_back(group_of_column[static_cast<std::size_t>(column)]);
        return groups;
    }

    /// Of a block, at most.
    static Index most_columns(const B& backend) {
        if constexpr (requires { backend.template refine_columns<T>(); }) {
            return backend.template refine_columns<T>();
        }
        return refined_columns;
    }

    bool is_reordered() const { return !std::equal(order_.begin(), order_.end(), f_.order().begin()); }

    /// The codes in the order of visits, and E.
    void load(MatrixView<const Code> stored, const Slab& slab) {
        b_.load_columns(stored, order_, slab.codes, nullptr);
        const MatrixView<const T> target = slab.outside;
        if (is_reordered()) {
            const MatrixView<T> unordered = unordered_.view().row_range(0, stored.rows);
            b_.store_columns(target, f_.order(), unordered);
            b_.load_columns(MatrixView<const T>(unordered), order_, slab.error, nullptr);
        } else {
            b_.copy(target, slab.error);
        }
        b_.subtract_decoded(grid_, MatrixView<const Code>(slab.codes), group_of_,
                            MatrixView<const T>(slab.scales), MatrixView<const T>(slab.zeros), slab.error);
    }

    /// `outside` for a first pass, forward, and the objective: the sum over all blocks of
    /// E_B' (H_BB E_B + 2 sum of H_BB' E_B' over later B').
    void start(const Slab& slab) {
        const MatrixView<const T> error = slab.error;
        const auto add_dots = [&] {
            b_.add_row_dots(error, MatrixView<const T>(slab.outside),
                            slab.tally.row_range(Tally::Lowered, 1));
        };
        for (const Panel& panel : plan_.panels()) {
            const Index width = panel.end - panel.begin;
            const MatrixView<T> outside = slab.outside.row_range(panel.begin, width);
            gram_.multiply(panel.begin, panel.end, panel.end, n_, error.row_range(panel.end, n_ - panel.end),
                           T(0), outside);
            gram_.add_later(plan_.blocks_of(panel), false, error.row_range(panel.begin, width), outside);
        }
        add_dots();
        gram_.add_diagonal(plan_.blocks(), error, slab.outside);
        add_dots();
    }

    template <class Advance>
    bool pass(const Slab& slab, bool backward, Advance& advance) {
        const Index rows = slab.error.cols;
        const MatrixView<const T> error = slab.error;
        const auto at = [&](const auto& list, std::size_t i) {
            return list[backward ? list.size() - 1 - i : i];
        };
        for (std::size_t p = 0; p < plan_.panels().size(); ++p) {
            const Panel panel = at(plan_.panels(), p);
            const MatrixView<T> fresh = fresh_.view().block(0, 0, panel.end - panel.begin, rows);
            const Index from = backward ? panel.end : 0;
            const Index to = backward ? n_ : panel.begin;
            gram_.multiply(panel.begin, panel.end, from, to, error.row_range(from, to - from), T(0), fresh);
            if constexpr (RefittableGrid<G, T>) {
                if (refits_ && panel.is_wide) refit(slab, panel, backward, fresh);
            }
            if constexpr (nested) {
                if (refits_) refit_family(slab, panel, backward, fresh);
            }
            const std::span<const Block> blocks = plan_.blocks_of(panel);
            for (std::size_t i = 0; i < blocks.size(); ++i) {
                const Block block = at(blocks, i);
                refine(slab, panel, block, backward);
                // the blocks of the panel still to come
                const Index begin = backward ? panel.begin : block.end;
                const Index end = backward ? block.begin : panel.end;
                if (begin == end) continue;
                gram_.multiply(begin, end, block.begin, block.end,
                               error.row_range(block.begin, block.end - block.begin), T(1),
                               fresh.row_range(begin - panel.begin, end - begin));
            }
            if (!advance(panel.end - panel.begin)) return false;
        }
        return true;
    }

    void refine(const Slab& slab, const Panel& panel, const Block& place, bool backward) {
        const Index rows = slab.error.cols;
        const Index width = place.end - place.begin;
        RefineBlock<T> block;
        block.begin = place.begin;
        block.end = place.end;
        block.backward = backward;
        block.error = slab.error;
        block.fresh = fresh_.view().block(place.begin - panel.begin, 0, width, rows);
        block.outside = slab.outside;
        block.gram = gram_.diagonal_block(place);
        block.codes = slab.codes;
        block.scales = slab.scales;
        block.zeros = slab.zeros;
        block.tally = slab.tally;
        if (refits_) block.refits = plan_.groups_of(place);
        if (refits_ && nested) block.shared = part(shared_, rows);
        block.group_of = group_of_;
        b_.refine(grid_, block);
    }

    /// The scale of a group that is a panel of its own.
    void refit(const Slab& slab, const Panel& panel, bool backward,
               MatrixView<const T> fresh) requires RefittableGrid<G, T> {
        const Index rows = slab.error.cols;
        const Index width = panel.end - panel.begin;
        const auto of_panel = [&](Matrix& matrix) { return matrix.view().block(0, 0, width, rows); };
        const MatrixView<T> slopes = of_panel(slopes_);
        const MatrixView<T> later = of_panel(later_);
        const MatrixView<T> own = of_panel(own_);
        const Index group = group_of_[static_cast<std::size_t>(panel.begin)];

        // C = decode(code, {1, zero}) - decode(code, {0, zero})
        const auto decode = [&](Matrix& scales, MatrixView<T> c) {
            b_.set_zero(c);
            b_.subtract_decoded(
                grid_, MatrixView<const Code>(slab.codes.row_range(panel.begin, width)),
                std::span<const Index>(group_of_).subspan(static_cast<std::size_t>(panel.begin)),
                MatrixView<const T>(part(scales, rows)), MatrixView<const T>(slab.zeros), c);
        };
        decode(units_, own);
        decode(nothing_, slopes);
        b_.subtract(MatrixView<const T>(own), slopes);

        add_products(panel, backward, slopes, later, own);
        b_.refit(grid_, RefineGroup<T>{slab.error.row_range(panel.begin, width),
                                       slab.outside.row_range(panel.begin, width), fresh, slopes, later, own,
                                       slab.scales.row_range(group, 1), slab.tally});
    }

    /// later and own of a RefineGroup with these slopes.
    void add_products(const Panel& panel, bool backward, MatrixView<const T> slopes, MatrixView<T> later,
                      MatrixView<T> own) {
        b_.set_zero(later);
        gram_.add_later(plan_.blocks_of(panel), backward, slopes, later);
        for (const Block& block : plan_.blocks_of(panel)) {
            const auto rows_of = [&](auto view) {
                return view.row_range(block.begin - panel.begin, block.end - block.begin);
            };
            b_.multiply(T(1), Transpose::No, gram_.diagonal_block(block), rows_of(slopes), T(0),
                        rows_of(own));
        }
    }

    /// The numbers that the family of a panel shares.
    void refit_family(const Slab& slab, const Panel& panel, bool backward,
                      MatrixView<const T> fresh) requires TwoLevelGrid<G, T> {
        const Index rows = slab.error.cols;
        const Index width = panel.end - panel.begin;
        const auto of_panel = [&](Matrix& matrix) { return matrix.view().block(0, 0, width, rows); };
        const MatrixView<T> later = of_panel(later_);
        const MatrixView<T> own = of_panel(own_);
        const Index first = group_of_[static_cast<std::size_t>(panel.begin)] / family_size() * family_size();
        const Index count = std::min(family_size(), group_count() - first);
        std::vector<Index> group_of(group_of_.begin() + panel.begin, group_of_.begin() + panel.end);
        for (Index& group : group_of) group -= first;

        RefineFamily<T> family;
        family.codes = slab.codes.row_range(panel.begin, width);
        family.group_of = group_of;
        family.scales = slab.scales.row_range(first, count);
        family.zeros = slab.zeros.row_range(first, count);
        family.shared = part(shared_, rows);
        family.scale_slopes = of_panel(slopes_);
        family.zero_slopes = of_panel(zero_slopes_);
        b_.share(grid_, family);
        const auto refit_number = [&](Number number, MatrixView<const T> slopes, Index row) {
            add_products(panel, backward, slopes, later, own);
            b_.refit_shared(grid_, family, number,
                            RefineGroup<T>{slab.error.row_range(panel.begin, width),
                                           slab.outside.row_range(panel.begin, width), fresh, slopes, later,
                                           own, family.shared.row_range(row, 1), slab.tally});
        };
        refit_number(Number::Scale, family.scale_slopes, 0);
        if (grid_.has_minimum()) refit_number(Number::Zero, family.zero_slopes, 1);
    }

    Index group_count() const { return 1 + *std::max_element(group_of_.begin(), group_of_.end()); }

    /// Of scales or zeros: a layer may have groups without columns behind the others.
    MatrixView<T> used(MatrixView<T> params) const { return params.row_range(0, group_count()); }

    /// lambda |e|^2 of each output row.
    std::vector<double> damping_part(const Slab& slab) {
        const MatrixView<const T> error = slab.error;
        b_.add_row_dots(error, error, slab.tally.row_range(Tally::Lowered, 1));
        std::vector<double> values = read_tally(slab).lowered;
        for (double& value : values) value *= static_cast<double>(f_.gram().lambda());
        return values;
    }

    /// Remembers codes and parameters as a round begins.
    void keep(const Slab& slab) {
        const Index rows = slab.codes.cols;
        b_.transpose(MatrixView<const Code>(slab.codes), kept_codes_.view().row_range(0, rows));
        b_.copy(MatrixView<const T>(used(slab.scales)), part(kept_scales_, rows));
        if constexpr (nested) b_.copy(MatrixView<const T>(used(slab.zeros)), part(kept_zeros_, rows));
    }

    /// Gives output rows what they had then. For few rows if any: by way of the host.
    void restore(const Slab& slab, const std::vector<std::size_t>& output_rows) {
        if (output_rows.empty()) return;
        const auto rows = static_cast<std::size_t>(slab.codes.cols);
        const auto n = static_cast<std::size_t>(n_);
        std::vector<Code> codes = b_.read(slab.codes);
        const std::vector<Code> codes_before = b_.read(kept_codes_.view().row_range(0, slab.codes.cols));
        for (const std::size_t r : output_rows)
            for (std::size_t k = 0; k < n; ++k) codes[k * rows + r] = codes_before[r * n + k];
        b_.write(codes, slab.codes);
        restore(used(slab.scales), kept_scales_, output_rows);
        if constexpr (nested) restore(used(slab.zeros), kept_zeros_, output_rows);
    }
    void restore(MatrixView<T> params, Matrix& kept, const std::vector<std::size_t>& output_rows) {
        const auto rows = static_cast<std::size_t>(params.cols);
        std::vector<T> values = b_.read(params);
        const std::vector<T> before = b_.read(part(kept, params.cols));
        for (const std::size_t r : output_rows)
            for (std::size_t i = r; i < values.size(); i += rows) values[i] = before[i];
        b_.write(values, params);
    }

    /// What has been counted since the last call.
    Counts read_tally(const Slab& slab) {
        const MatrixView<double> counted = slab.tally.row_range(0, Tally::Finished);
        std::vector<double> values = b_.read(MatrixView<const double>(counted));
        b_.set_zero(counted);
        const auto rows = static_cast<std::size_t>(counted.cols);
        Counts counts;
        counts.changed.assign(values.begin() + static_cast<std::ptrdiff_t>(rows), values.end());
        values.resize(rows);
        counts.lowered = std::move(values);
        return counts;
    }

    const G& grid_;
    const Refinement& options_;
    const Factorization<T, B>& f_;
    B& b_;
    Index n_;
    bool refits_;
    std::vector<Index> order_;     // the original column that is visited as the p-th
    std::vector<Index> group_of_;  // of each column in that order
    RefinementPlan plan_;

    RefinementGram<T, B> gram_;
    Matrix outside_;    // (in_features, rows) of E H, what the next pass does not visit first
    Matrix unordered_;  // (rows, in_features) W* in the original order, where it is reordered
    Matrix fresh_;      // (widest panel, rows) of E H, over the columns visited
    Matrix slopes_;     // (widest group, rows) C of a wide group, or of what scales of a family share
    Matrix later_;
    Matrix own_;
    Matrix zero_slopes_;  // C of what zeros of a family share
    Matrix shared_;       // (2, rows) of the family in work
    Matrix units_;        // (groups, rows) ones
    Matrix nothing_;
    typename B::template Matrix<double> tally_;     // (Tally::rows, rows)
    typename B::template Matrix<Code> kept_codes_;  // (rows, in_features) as the round began
    Matrix kept_scales_;                            // (groups, rows)
    Matrix kept_zeros_;                             // (groups, rows), of a TwoLevelGrid
    RefinementRecord record_;
};

}  // namespace residua::detail
