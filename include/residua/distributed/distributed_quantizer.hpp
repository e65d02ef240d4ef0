#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "residua/distributed/all_reduce.hpp"
#include "residua/distributed/broadcast_layer.hpp"
#include "residua/distributed/row_result.hpp"
#include "residua/distributed/share_factorization.hpp"
#include "residua/solver/solver.hpp"

namespace residua {

struct DistributedOptions {
    Reduction reduction = Reduction::Fast;

    /// Rows of a layer that several ranks solve are cut at multiples of this. With Reduction::Ordered every
    /// layer is solved in pieces of so many rows, so that no result depends on the number of ranks; smaller pieces
    /// make poor use of a GPU.
    Index piece_rows = 4096;

    /// The most that one rank may have to do, over the mean of all, before layers are split, see SolvePlan.
    double largest_share = 1.2;

    void validate() const {
        require(piece_rows >= 1, "DistributedOptions: piece_rows is", piece_rows, "at least 1");
        require(largest_share >= 1, "DistributedOptions: largest_share is", largest_share, "at least 1");
    }
};

/// A layer that ranks have quantized together, on every rank. Without codes unless report.status is Success.
///
/// The report's objectives, refinement and seconds are sums over all rows, whoever solved them.
template <class G, Real T>
struct DistributedLayer {
    QuantizedLayer<G, T> layer = {};
    Report report = {};
};

/// Quantizes the linear layers of a model with several ranks, each of which has seen some of the calibration
/// tokens:
///
///   1. every rank accumulates its tokens into ShardedMoments, one for each group of layers that read the same
///      inputs;
///   2. the moments of a group are summed up on the rank that owns it, and layers are solved by the owners of
///      their groups (SolvePlan). The moments of a group that is too large for one rank are summed up on all; its
///      owner factors them and sends R and M, and every rank solves some rows;
///   3. every rank gets all codes, for its next forward pass.
///
/// A program:
///
///     residua::MPICommunicator ranks;
///     residua::DistributedQuantizer<float, residua::EigenBackend, residua::MPICommunicator> quantizer(cpu, ranks);
///     const auto layers = quantizer.quantize<float>({{&attention, {q, k, v}}, {&mlp, {gate, up}}}, grid,
///                                                   options, residua::QEP{});
///     // layers[0][2].layer.codes are those of v, on every rank
///
/// All calls are collective: every rank makes them with the same weights, grid, options and method. Costs of a
/// group: n^3 and m n^2 operations, as docs/method.md counts them, on the ranks that share it; docs/distributed.md
/// has what is sent.
///
/// Throws std::invalid_argument for misuse, on every rank, and what the communicator throws.
template <Real T, Backend<T> B, Communicator C>
class DistributedQuantizer {
  public:
    /// Layers (out_features, in_features) that read the same inputs, and the moments of this rank's tokens.
    template <class In>
    struct Group {
        ShardedMoments<T, B>* sums = nullptr;
        std::vector<MatrixView<const In>> weights = {};
    };

    /// `backend` and `ranks` must outlive the quantizer.
    DistributedQuantizer(B& backend, C& ranks, DistributedOptions options = {})
        : backend_(backend), ranks_(ranks), options_(options) {
        options_.validate();
    }

    const DistributedOptions& options() const { return options_; }

    /// What this rank has solved, where the backend keeps it: rows [first, first + codes.rows()) of a layer.
    template <class Q>
    struct SolvedRows {
        std::size_t group = 0;
        std::size_t layer = 0;
        Index first = 0;
        Q quantized = {};
    };

    /// What all ranks have solved, each its part.
    template <class Q>
    struct Solution {
        SolvePlan plan;
        std::vector<GroupShape> shapes;
        std::vector<SolvedRows<Q>> rows;  ///< of this rank, in the order of groups, layers and rows
    };

    /// The layers of all groups, in their order. The groups' moments are empty afterwards.
    template <class In, Grid<T> G, Method M>
    [[nodiscard]] std::vector<std::vector<DistributedLayer<G, T>>> quantize(
        const std::vector<Group<In>>& groups, const G& grid, const SolverOptions& options, const M& method) {
        return quantize(groups, grid, options, M::residuals,
                        [&](const Moments<T, B>& moments, MatrixView<const In> rows, Index first) {
                            return Solver<M, T, B>(moments, options, method).quantize_rows(rows, first, grid);
                        });
    }

    /// The same, where solve(moments, rows, first) makes a QuantizedMatrix of rows [first, first + rows.rows) of a
    /// layer: by Solver::quantize_rows onto this grid, of a method with these residuals and these options.
    template <class In, Grid<T> G, class Solve>
    [[nodiscard]] auto quantize(const std::vector<Group<In>>& groups, const G& grid,
                                const SolverOptions& options, Residuals residuals, Solve solve) {
        return gather(solve_rows(groups, grid, options, residuals, solve));
    }

    /// The part of quantize() before codes are sent: what an engine takes that keeps on a rank what it solved.
    template <class In, Grid<T> G, class Solve>
    [[nodiscard]] auto solve_rows(const std::vector<Group<In>>& groups, const G& grid,
                                  const SolverOptions& options, Residuals residuals, Solve solve) {
        using Q = std::invoke_result_t<Solve&, const Moments<T, B>&, MatrixView<const In>, Index>;
        const SolveCost cost = SolveCost::of(residuals, options, rows_at_once);
        std::vector<GroupShape> shapes = shapes_of(groups);
        const FactorizationKey key = key_of(grid, options);
        SolvePlan plan(shapes, cost, ranks_.size(), options_.piece_rows, options_.largest_share);
        std::vector<std::optional<Moments<T, B>>> moments;
        for (std::size_t g = 0; g < groups.size(); ++g)
            moments.push_back(reduce(*groups[g].sums, ranks_, plan.is_split(g) ? every_rank : plan.owner(g),
                                     options_.reduction));

        std::vector<SolvedRows<Q>> solved;
        std::vector<double> factoring(groups.size(), 0);  // seconds that no report has yet
        const auto solve_tasks = [&](bool split) {
            for (const RowTask& task : plan.tasks()) {
                const std::size_t g = task.group;
                if (task.rank != ranks_.rank() || plan.is_split(g) != split) continue;
                if (!split)
                    factoring[g] +=
                        seconds_of([&] { detail::prepare_factorization(*moments[g], key, cost, shapes[g]); });
                solve_task(task, *moments[g], groups[g].weights[task.layer], solve, factoring[g], solved);
                if (task.layer + 1 == shapes[g].out_features.size()) moments[g].reset();  // and R and M
            }
        };
        // What others wait for comes first.
        for (std::size_t g = 0; g < groups.size(); ++g)
            if (plan.is_split(g) && plan.owner(g) == ranks_.rank())
                factoring[g] +=
                    seconds_of([&] { detail::prepare_factorization(*moments[g], key, cost, shapes[g]); });
        solve_tasks(false);
        for (std::size_t g = 0; g < groups.size(); ++g)
            if (plan.is_split(g))
                detail::share_factorization(*moments[g], key, cost, shapes[g], ranks_, plan.owner(g));
        solve_tasks(true);
        return Solution<Q>{std::move(plan), std::move(shapes), std::move(solved)};
    }

    /// All layers on every rank.
    template <class Q>
    [[nodiscard]] auto gather(const Solution<Q>& solution) {
        using G = decltype(Q::grid);
        std::vector<std::vector<DistributedLayer<G, T>>> layers;
        for (const GroupShape& shape : solution.shapes) layers.emplace_back(shape.out_features.size());
        for (const auto& part : solution.rows)
            place(part, solution.shapes[part.group].out_features[part.layer], layers[part.group][part.layer]);
        const std::span<const RowTask> tasks = solution.plan.tasks();
        for (std::size_t first = 0, end = 0; first < tasks.size(); first = end) {
            const auto [group, layer] = std::pair(tasks[first].group, tasks[first].layer);
            while (end < tasks.size() && tasks[end].group == group && tasks[end].layer == layer) ++end;
            gather(tasks.subspan(first, end - first), layers[group][layer]);
        }
        return layers;
    }

    /// One layer by all ranks, its moments being the same on all of them: reduce(sums, ranks, every_rank, ...).
    /// Layers that share moments share R and M. The rest as above.
    template <class In, Grid<T> G, class Solve>
    [[nodiscard]] auto quantize_layer(const Moments<T, B>& moments, MatrixView<const In> weights,
                                      const G& grid, const SolverOptions& options, Residuals residuals,
                                      Solve solve) {
        using Q = std::invoke_result_t<Solve&, const Moments<T, B>&, MatrixView<const In>, Index>;
        const SolveCost cost = SolveCost::of(residuals, options, rows_at_once);
        const GroupShape shape{moments.in_features(), {weights.rows}};
        const FactorizationKey key = key_of(grid, options);
        // Any share is larger than the mean: the group is split wherever that makes it shorter.
        SolvePlan plan({shape}, cost, ranks_.size(), options_.piece_rows, 1);
        double factoring = seconds_of([&] {
            if (plan.is_split(0)) {
                detail::share_factorization(moments, key, cost, shape, ranks_, plan.owner(0));
            } else if (plan.owner(0) == ranks_.rank()) {
                detail::prepare_factorization(moments, key, cost, shape);
            }
        });
        std::vector<SolvedRows<Q>> solved;
        for (const RowTask& task : plan.tasks())
            if (task.rank == ranks_.rank()) solve_task(task, moments, weights, solve, factoring, solved);
        return std::move(gather(Solution<Q>{std::move(plan), {shape}, std::move(solved)})[0][0]);
    }

  private:
    /// A GPU's sweep gives 32 rows to each of its 100 to 150 multiprocessors, and goes over all columns one by one.
    static constexpr Index rows_at_once = std::derived_from<B, detail::HostMatrices> ? 1 : 4096;

    template <class In>
    static std::vector<GroupShape> shapes_of(const std::vector<Group<In>>& groups) {
        std::vector<GroupShape> shapes;
        for (const auto& group : groups) {
            require(group.sums != nullptr && !group.weights.empty(),
                    "DistributedQuantizer: a group's weights:", group.weights.size(),
                    "at least one layer, with its moments");
            GroupShape& shape = shapes.emplace_back(GroupShape{.in_features = group.sums->in_features()});
            for (const auto& w : group.weights) {
                detail::require_matrix("DistributedQuantizer: weights", w, shape.in_features);
                require(w.rows >= 1, "DistributedQuantizer: weights has rows:", w.rows, "at least 1");
                shape.out_features.push_back(w.rows);
            }
        }
        return shapes;
    }

    template <class Work>
    double seconds_of(Work work) {
        const auto start = backend_.timestamp();
        work();
        return backend_.seconds(start, backend_.timestamp());
    }

    template <Grid<T> G>
    static FactorizationKey key_of(const G& grid, SolverOptions options) {
        options.group_size = resolve_group_size<G>(options.group_size);
        return FactorizationKey(options, detail::family_of(grid));
    }

    /// The rows of a task, whose report tells of `factoring` too.
    template <class In, class Solve, class Q>
    void solve_task(const RowTask& task, const Moments<T, B>& moments, MatrixView<const In> weights,
                    Solve& solve, double& factoring, std::vector<SolvedRows<Q>>& solved) {
        const bool in_pieces = options_.reduction == Reduction::Ordered;
        const Index step = in_pieces ? options_.piece_rows : task.rows.count;
        for (Index first = task.rows.first; first < task.rows.end(); first += step) {
            const Index count = std::min(step, task.rows.end() - first);
            solved.push_back(
                {task.group, task.layer, first, solve(moments, weights.row_range(first, count), first)});
            solved.back().quantized.report.seconds.factorize += std::exchange(factoring, 0);
            if (!solved.back().quantized) return;
        }
    }

    /// Adds rows to what this rank has of a layer of `rows` rows.
    template <class Q, class G>
    void place(const SolvedRows<Q>& part, Index rows, DistributedLayer<G, T>& layer) {
        const bool is_first = layer.layer.rows == 0;
        if (is_first) {
            layer.report = part.quantized.report;
        } else {
            detail::add_report(layer.report, part.quantized.report);
        }
        layer.layer.rows = rows;
        if (!part.quantized) return;
        const auto host = part.quantized.to_host(backend_);
        detail::resize(layer.layer, rows, host.cols, host.groups);
        layer.layer.group_index = host.group_index;
        layer.layer.grid = host.grid;
        const auto copy = [&](const auto& from, Index width, auto& to) {
            std::copy(from.begin(), from.end(), to.begin() + part.first * width);
        };
        copy(host.codes, host.cols, layer.layer.codes);
        copy(host.scales, host.groups, layer.layer.scales);
        copy(host.zeros, host.groups, layer.layer.zeros);
    }

    /// What `tasks`, those of one layer, have made of their rows, to every rank.
    template <class G>
    void gather(std::span<const RowTask> tasks, DistributedLayer<G, T>& layer) {
        Report whole = ranks_.size() == 1 ? layer.report : Report();
        for (const RowTask& task : tasks) {
            if (ranks_.size() == 1) break;
            std::vector<double> numbers;
            if (task.rank == ranks_.rank()) numbers = detail::ReportNumbers::of(layer.report);
            detail::broadcast_list(ranks_, numbers, task.rank);
            const Report part = detail::ReportNumbers(std::move(numbers)).report();
            if (&task == &tasks.front()) {
                whole = part;
            } else {
                detail::add_report(whole, part);
            }
            if (part.status == Status::Success)
                detail::broadcast_rows(ranks_, layer.layer, task.rows, task.rank);
        }
        layer.report = std::move(whole);
        if (layer.report.status != Status::Success) layer.layer = {};
    }

    B& backend_;
    C& ranks_;
    DistributedOptions options_;
};

template <Backend<float> B, Communicator C>
DistributedQuantizer(B&, C&, DistributedOptions = {}) -> DistributedQuantizer<float, B, C>;

}  // namespace residua
