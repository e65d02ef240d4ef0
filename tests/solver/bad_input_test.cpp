// Every public function of the solver with every class of bad input: the message names the argument, or the
// status says what was wrong. A row of the table is a cell of that matrix.

#include <cstdint>
#include <functional>
#include <limits>
#include <residua/residua.hpp>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

using CpuMoments = MomentsOf<EigenFloat>;

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite = std::numeric_limits<float>::infinity();
constexpr float largest_float = std::numeric_limits<float>::max();
constexpr float denormal = std::numeric_limits<float>::denorm_min();

struct Cell {
    std::string what;
    std::function<Status()> call;
    std::string expected;  ///< part of the message of the exception, or the status
};

/// The message of the exception that `call` ends in, else the name of its status.
std::string outcome_of(const std::function<Status()>& call) {
    try {
        return std::string(to_string(call()));
    } catch (const std::exception& error) {
        return error.what();
    }
}

/// Something valid of each kind, to be spoilt.
struct Valid {
    static constexpr Index m = 6, n = 32, tokens = 80;
    EigenBackend& cpu = EigenFloat::get();
    std::vector<float> x, x_fp, w;
    IntegerGrid grid{.bits = 4};

    Valid() {
        const Layer layer = random_layer({.out = m, .in = n, .tokens = tokens, .seed = 3});
        x.assign(layer.x.data.begin(), layer.x.data.end());
        x_fp.assign(layer.x_fp.data.begin(), layer.x_fp.data.end());
        w.assign(layer.w.data.begin(), layer.w.data.end());
    }
    MatrixView<const float> inputs() const { return {x.data(), tokens, n}; }
    MatrixView<const float> references() const { return {x_fp.data(), tokens, n}; }
    MatrixView<const float> weights() const { return {w.data(), m, n}; }
    CpuMoments moments() const {
        CpuMoments sums(cpu, n);
        sums.accumulate(inputs(), references());
        return sums;
    }
    template <class Method = GPTQ>
    Status solve(const SolverOptions& options = {}, const Method& method = {}) const {
        const CpuMoments sums = moments();
        return SolverOf<Method, EigenFloat>(sums, options, method).quantize(weights(), grid).report.status;
    }
};

/// Views that no function may take, by what is wrong with them.
std::vector<std::pair<std::string, MatrixView<const float>>> bad_views(const std::vector<float>& values,
                                                                       Index rows, Index cols) {
    const float* data = values.data();
    const auto odd = reinterpret_cast<const float*>(reinterpret_cast<std::uintptr_t>(data) + 1);
    constexpr Index huge = Index(1) << 61;
    return {{".data is null", {nullptr, rows, cols}},
            {".data is not aligned", {odd, rows, cols}},
            {".stride is " + std::to_string(cols - 1), {data, rows, cols, cols - 1}},
            {".stride is -" + std::to_string(cols), {data, rows, cols, -cols}},
            {".cols is 0", {data, rows, 0}},
            {".cols is " + std::to_string(cols + 1), {data, rows, cols + 1}},
            {".cols is -1", {data, rows, -1}},
            {".rows is -3", {data, -3, cols}},
            {".rows times stride is", {data, huge, cols}},
            {".rows times stride is", {data, rows, cols, huge}}};
}

}  // namespace

TEST_CASE("Bad input to any function is refused by name", "[solver][bad_input]") {
    const Valid v;
    std::vector<Cell> cells;
    const auto add = [&](std::string what, std::string expected, std::function<Status()> call) {
        cells.push_back({std::move(what), std::move(call), std::move(expected)});
    };
    const auto nothing = Status::Success;

    // views
    for (const auto& [wrong, view] : bad_views(v.x, v.tokens, v.n)) {
        const MatrixView<const float> bad = view;
        add("accumulate(x)", "x" + wrong,
            [&, bad] { return CpuMoments(v.cpu, v.n).accumulate(bad), nothing; });
        add("accumulate(x_fp)", "x_fp" + wrong,
            [&, bad] { return CpuMoments(v.cpu, v.n).accumulate(v.inputs(), bad), nothing; });
    }
    // the residual stream, of which any number of columns goes in the first batch
    std::vector<float> h(std::size_t(v.tokens * v.m), 0.5f);
    const ResidualStream stream{MatrixView<const float>(h.data(), v.tokens, v.m),
                                MatrixView<const float>(h.data(), v.tokens, v.m)};
    for (const auto& [wrong, view] : bad_views(h, v.tokens, v.m)) {
        for (const bool reference : {false, true}) {
            const std::string name = reference ? "h_fp" : "h";
            const bool of_columns = wrong.starts_with(".cols");
            ResidualStream bad = stream;
            (reference ? bad.h_fp : bad.h) = view;
            if (of_columns && !reference && view.cols > 0) continue;
            add("accumulate(" + name + ")", of_columns && !reference ? "h.cols is" : name + wrong,
                [&, bad] { return CpuMoments(v.cpu, v.n).accumulate(v.inputs(), bad), nothing; });
            add("accumulate(x_fp, " + name + ")", of_columns && !reference ? "h.cols is" : name + wrong,
                [&, bad] {
                    return CpuMoments(v.cpu, v.n).accumulate(v.inputs(), v.references(), bad), nothing;
                });
        }
    }
    for (const auto& [wrong, view] : bad_views(v.x, v.m, v.n)) {
        const MatrixView<const float> bad = view;
        if (!bad.data) continue;  // an absent one
        add("saved stream_cross",
            bad.rows < 0 || wrong.starts_with(".cols") ? "stream_cross has" : "stream_cross", [&, bad] {
                const std::vector<float> gram(std::size_t(v.n * v.n), float(1));
                return (void)CpuMoments(v.cpu, {gram.data(), v.n, v.n}, {}, 1, bad), nothing;
            });
    }
    for (const auto& [wrong, view] : bad_views(v.x, v.tokens, v.n)) {
        const MatrixView<const float> bad = view;
        add("final_norm_gains", "head" + wrong, [&, bad] {
            const CpuMoments sums = v.moments();
            return final_norm_gains(sums, bad).status;
        });
    }
    for (const auto& [wrong, view] : bad_views(v.w, v.m, v.n)) {
        const MatrixView<const float> bad = view;
        add("quantize", "weights" + wrong, [&, bad] {
            const CpuMoments sums = v.moments();
            return SolverOf<GPTQ, EigenFloat>(sums).quantize(bad, v.grid).report.status;
        });
        add("quantize_and_consume", "weights" + wrong, [&, bad] {
            SolverOf<GPTQ, EigenFloat> solver(v.cpu, v.n);
            solver.accumulate(v.inputs());
            return solver.quantize_and_consume(bad, v.grid).report.status;
        });
        add("refine", "weights" + wrong, [&, bad] {
            const CpuMoments sums = v.moments();
            auto layer = SolverOf<GPTQ, EigenFloat>(sums).quantize(v.weights(), v.grid);
            return refine(sums, bad, layer);
        });
        add("objective", "weights" + wrong, [&, bad] {
            const CpuMoments sums = v.moments();
            const auto layer = SolverOf<GPTQ, EigenFloat>(sums).quantize(v.weights(), v.grid);
            return (void)objective(sums, bad, layer), nothing;
        });
        if (wrong.starts_with(".cols is") && bad.cols > 0) continue;  // any number of columns can be rounded
        add("round_weights", wrong.starts_with(".cols") ? "weights" : "weights" + wrong,
            [&, bad] { return round_weights<float>(v.cpu, bad, v.grid).report.status; });
    }
    for (const auto& [wrong, view] : bad_views(v.x, v.n, v.n)) {
        const MatrixView<const float> bad = view;
        const bool of_columns = wrong.starts_with(".cols");
        add("saved gram",
            bad.rows != v.n ? "in_features is"
            : of_columns    ? "gram"
                            : "gram" + wrong,
            [&, bad] { return (void)CpuMoments(v.cpu, bad, {}, 1), nothing; });
        if (!bad.data) continue;  // an absent cross
        add("saved cross", of_columns || bad.rows < 0 ? "cross has rows" : "cross", [&, bad] {
            const std::vector<float> gram(std::size_t(v.n * v.n), float(1));
            return (void)CpuMoments(v.cpu, {gram.data(), v.n, v.n}, bad, 1), nothing;
        });
    }

    // sizes
    for (const Index size : {Index(0), Index(-1), Index(1) << 62, std::numeric_limits<Index>::max()}) {
        const std::string number = std::to_string(size);
        add("Moments", "in_features is " + number,
            [&, size] { return (void)CpuMoments(v.cpu, size), nothing; });
        add("Solver", "in_features is " + number,
            [&, size] { return (void)SolverOf<GPTQ, EigenFloat>(v.cpu, size), nothing; });
        if (size < 1) {
            add("workspace_bytes", "out_features is " + number,
                [&, size] { return (void)workspace_bytes<GPTQ, float>(v.cpu, size, v.n), nothing; });
        }
        add("workspace_bytes", "in_features is " + number,
            [&, size] { return (void)workspace_bytes<GPTQ, float>(v.cpu, v.m, size), nothing; });
    }
    add("Matrix", "rows is -1", [&] { return (void)Matrix<float>(-1, 2), nothing; });
    add("Matrix", "cols is -1", [&] { return (void)Matrix<float>(2, -1), nothing; });
    add("Matrix", "stride is 1", [&] { return (void)Matrix<float>(2, 2, 1), nothing; });
    add("Executor", "threads is 0", [&] { return (void)Executor(0), nothing; });
    add("Executor", "threads is 1000000", [&] { return (void)Executor(1000000), nothing; });

    const std::vector<float> one(std::size_t(v.n * v.n), 1.0f);
    const MatrixView<const float> ones(one.data(), v.n, v.n);
    for (const Index tokens : {Index(-1), (Index(1) << 53) + 1, std::numeric_limits<Index>::max()}) {
        const std::string number = "tokens is " + std::to_string(tokens);
        add("saved tokens", number,
            [&, tokens] { return (void)CpuMoments(v.cpu, ones, {}, tokens), nothing; });
        add("replace", number, [&, tokens] {
            return CpuMoments(v.cpu, v.n).replace(tokens, {}, [](auto, auto, auto) {}), nothing;
        });
    }
    for (const Index width : {Index(-1), Index(1) << 60}) {
        add("replace", "kind.stream_width is " + std::to_string(width), [&, width] {
            CpuMoments(v.cpu, v.n).replace(1, {.stream_width = width}, [](auto, auto, auto) {});
            return nothing;
        });
    }
    add("merge", "other.tokens is", [&] {
        CpuMoments sums(v.cpu, ones, {}, CpuMoments::most_tokens);
        return sums.merge(CpuMoments(v.cpu, ones, {}, 1)), nothing;
    });
    add("merge", "other.in_features is", [&] {
        CpuMoments sums = v.moments();
        return sums.merge(CpuMoments(v.cpu, v.n + 1)), nothing;
    });
    add("merge", "other was moved from", [&] {
        CpuMoments sums = v.moments(), other = v.moments();
        const CpuMoments taken = std::move(other);
        return sums.merge(other), nothing;
    });

    // tokens
    add("no tokens", "accumulated tokens: 0", [&] {
        const CpuMoments sums(v.cpu, v.n);
        return SolverOf<GPTQ, EigenFloat>(sums).quantize(v.weights(), v.grid).report.status;
    });
    add("weights", "weights has elements: 3", [&] {
        CpuMoments sums(v.cpu, v.n);
        return sums.accumulate(v.inputs(), std::vector<float>(3, 1.0f)), nothing;
    });
    for (const float bad : {-1.0f, not_a_number, infinite}) {
        add("weights", "expected finite values of at least 0", [&, bad] {
            CpuMoments sums(v.cpu, v.n);
            return sums.accumulate(v.inputs(), std::vector<float>(std::size_t(v.tokens), bad)), nothing;
        });
    }
    add("x_fp", "needs the full-precision inputs x_fp", [&] {
        CpuMoments sums(v.cpu, v.n);
        sums.accumulate(v.inputs());
        return SolverOf<QEP, EigenFloat>(sums).quantize(v.weights(), v.grid).report.status;
    });
    add("consumed", "accumulated tokens: 0", [&] {
        SolverOf<GPTQ, EigenFloat> solver(v.cpu, v.n);
        solver.accumulate(v.inputs());
        (void)solver.quantize_and_consume(v.weights(), v.grid);
        return solver.quantize(v.weights(), v.grid).report.status;
    });

    // options, each out of its range at both ends
    const auto option = [&](std::string expected, std::function<void(SolverOptions&)> spoil) {
        add("SolverOptions", expected, [&, spoil] {
            SolverOptions options;
            spoil(options);
            return v.solve(options);
        });
    };
    for (const double bad : {-0.5, 1e300, double(not_a_number)}) {
        option("initial is", [bad](SolverOptions& o) { o.damping.initial = bad; });
        option("growth is", [bad](SolverOptions& o) { o.damping.growth = bad; });
        option("retry_from is", [bad](SolverOptions& o) { o.damping.retry_from = bad; });
        option("stream_alpha is", [bad](SolverOptions& o) { o.stream_alpha = bad; });
        add("final_norm_gains", "initial is", [&, bad] {
            const CpuMoments sums = v.moments();
            return final_norm_gains(sums, v.inputs(), {.initial = bad}).status;
        });
        option("tolerance is", [bad](SolverOptions& o) { o.refinement.tolerance = bad; });
        option("max_dead_inputs is", [bad](SolverOptions& o) { o.max_dead_inputs = bad; });
        add("GPTAQ", "alpha is", [&, bad] { return v.solve({}, GPTAQ{.alpha = bad}); });
        add("QEP", "alpha is", [&, bad] { return v.solve({}, QEP{.alpha = bad}); });
        add("ResComp", "alpha is", [&, bad] { return v.solve({}, ResidualComp{.alpha = bad}); });
        add("ResComp", "beta is", [&, bad] { return v.solve({}, ResidualComp{.beta = bad}); });
        add("refine", "alpha is", [&, bad] {
            const CpuMoments sums = v.moments();
            auto layer = SolverOf<GPTQ, EigenFloat>(sums).quantize(v.weights(), v.grid);
            return refine(sums, v.weights(), layer, {.alpha = bad});
        });
        add("ActivationQuantizer", "clip_ratio is",
            [&, bad] { return ActivationQuantizer{.clip_ratio = bad}.validate(), nothing; });
    }
    for (const int bad : {-1, 1 << 30}) {
        option("max_retries is", [bad](SolverOptions& o) { o.damping.max_retries = bad; });
        option("rounds is", [bad](SolverOptions& o) { o.refinement.rounds = bad; });
        option("sweeps_per_round is", [bad](SolverOptions& o) { o.refinement.sweeps_per_round = bad; });
        add("IntegerGrid", "bits is", [&, bad] { return IntegerGrid{.bits = bad}.validate(), nothing; });
        add("KQuantGrid", "bits is", [&, bad] { return KQuantGrid<16>{.bits = bad}.validate(), nothing; });
        add("KQuantGrid", "bits is", [&, bad] { return KQuantGrid<32>{.bits = bad}.validate(), nothing; });
        add("ClipSearch", "steps is",
            [&, bad] { return IntegerGrid{.clip = {.enabled = true, .steps = bad}}.validate(), nothing; });
        add("ClipSearch", "survivors is", [&, bad] {
            return IntegerGrid{.clip = {.enabled = true, .survivors = bad}}.validate(), nothing;
        });
        add("ActivationQuantizer", "bits is",
            [&, bad] { return ActivationQuantizer{.bits = bad}.validate(), nothing; });
    }
    option("group_size is -2", [](SolverOptions& o) { o.group_size = -2; });
    option("block_size is 0", [](SolverOptions& o) { o.block_size = 0; });
    option("block_size is -1", [](SolverOptions& o) { o.block_size = -1; });
    add("HadamardTransform", "features is 0", [&] { return (void)HadamardTransform(0), nothing; });
    add("HadamardTransform", "features is -8", [&] { return (void)HadamardTransform(-8), nothing; });
    add("HadamardTransform", "inner is 0", [&] { return (void)HadamardTransform(8, {.inner = 0}), nothing; });

    for (const Cell& cell : cells) {
        const std::string outcome = outcome_of(cell.call);
        CAPTURE(cell.what, cell.expected, outcome);
        CHECK(contains(outcome, cell.expected));
        CHECK(contains(outcome, "residua: "));
    }
    CHECK(cells.size() > 240);
    CHECK(v.solve() == Status::Success);
}

TEST_CASE("Group and block sizes beyond any layer are those of the layer", "[solver][bad_input]") {
    const Valid v;
    for (const Index size : {Index(1) << 40, std::numeric_limits<Index>::max()}) {
        SolverOptions options;
        options.group_size = size;
        options.block_size = size;
        options.refinement.rounds = 1;
        CHECK(v.solve<GPTQ>(options) == Status::Success);
        CHECK(v.solve<QEP>(options) == Status::Success);
    }
}

TEST_CASE("Numbers at the ends of the range have a status, not a crash", "[solver][bad_input]") {
    const Valid v;
    for (const float bad : {not_a_number, infinite, -infinite, largest_float, -largest_float, denormal,
                            float(1e30), float(0)}) {
        for (const int where : {0, 1, 2}) {
            for (const bool everywhere : {false, true}) {
                CAPTURE(bad, where, everywhere);
                Valid spoilt = v;
                std::vector<float>& values = where == 0 ? spoilt.x : where == 1 ? spoilt.x_fp : spoilt.w;
                if (everywhere) values.assign(values.size(), bad);
                values[37] = bad;
                SolverOptions options;
                options.report_objective = true;
                options.refinement.rounds = 1;
                for (const Status status : {spoilt.solve<GPTQ>(options), spoilt.solve<QEP>(options),
                                            spoilt.solve<ResidualComp>(options)}) {
                    CAPTURE(to_string(status));
                    const bool is_finite = detail::is_finite(bad);
                    if (!is_finite)
                        CHECK(status == (where == 2 ? Status::NonFiniteWeights : Status::NonFiniteMoments));
                    if (is_finite && std::abs(bad) < 1 && !everywhere) CHECK(status == Status::Success);
                }
            }
        }
    }
}
