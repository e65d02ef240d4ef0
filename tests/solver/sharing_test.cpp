// Factor once, solve many, do nothing that is not asked for; and the same bits for any number of threads.

#include <thread>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/counting_backend.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

Layer shared_layer() { return random_layer({.out = 20, .in = 60, .tokens = 200, .dead = {2}, .seed = 21}); }

/// Tasks in reverse order.
void backwards(Index count, const Executor::Task& task) {
    for (Index i = count; i-- > 0;) task(i);
}

/// Every third task on a thread of its own number.
void threads(Index count, const Executor::Task& task) {
    std::vector<std::thread> workers;
    for (Index first = 0; first < 3; ++first) {
        workers.emplace_back([&task, count, first] {
            for (Index i = first; i < count; i += 3) task(i);
        });
    }
    for (std::thread& worker : workers) worker.join();
}

}  // namespace

TEST_CASE("Moments are factored once for many solves", "[solver][sharing]") {
    const Layer layer = shared_layer();
    auto moments = moments_of<Counting>(layer);
    int& count = Counting::get().counts.factorizations;
    count = 0;
    const SolverOf<GPTQ, Counting> solver(moments);

    SECTION("q, k and v") {
        for (const double factor : {1.0, 0.5, -3.0}) {
            Layer other = layer;
            for (double& v : other.w.data) v *= factor;
            CHECK(quantize<Counting>(solver, other.w, IntegerGrid{}));
        }
        CHECK(count == 1);
    }
    SECTION("bit widths and grids") {
        for (const int bits : {2, 3, 4, 8})
            CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{.bits = bits}));
        CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{.bits = 4, .symmetry = Symmetry::Restricted}));
        CHECK(count == 1);
    }
    SECTION("solvers of all methods, with groups and blocks of their own") {
        SolverOptions options;
        options.group_size = 16;
        options.block_size = 32;
        CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{}));
        CHECK(quantize<Counting>(SolverOf<GPTAQ, Counting>(moments, options), layer.w, IntegerGrid{}));
        CHECK(quantize<Counting>(SolverOf<ResidualComp, Counting>(moments, options), layer.w, IntegerGrid{}));
        CHECK(quantize<Counting>(SolverOf<GPTQResidualComp, Counting>(moments), layer.w, IntegerGrid{}));
        CHECK(quantize<Counting>(SolverOf<QEP, Counting>(moments), layer.w, IntegerGrid{}));
        CHECK(quantize<Counting>(SolverOf<Qronos, Counting>(moments), layer.w, IntegerGrid{}));
        CHECK(count == 1);
    }
    SECTION("again after more tokens") {
        const auto before = quantize<Counting>(solver, layer.w, IntegerGrid{.bits = 3});
        const Layer more = random_layer({.out = 20, .in = 60, .tokens = 300, .dead = {}, .seed = 99});
        const auto x = upload<Counting>(more.x);
        const auto x_fp = upload<Counting>(more.x_fp);
        moments.accumulate(x.view(), x_fp.view());
        const auto after = quantize<Counting>(solver, layer.w, IntegerGrid{.bits = 3});
        CHECK(count == 2);
        CHECK(after.codes != before.codes);
        CHECK(after.report.tokens == 500);
        CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{}));
        CHECK(count == 2);
    }
    SECTION("again after a merge") {
        CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{}));
        moments.merge(moments_of<Counting>(layer));
        CHECK(quantize<Counting>(solver, layer.w, IntegerGrid{}));
        CHECK(count == 2);
    }
    SECTION("again for another damping or ordering, which gives another factor") {
        SolverOptions damped;
        damped.damping.initial = 1;
        SolverOptions ordered;
        ordered.ordering = Ordering::Activation;
        const auto natural = quantize<Counting>(solver, layer.w, IntegerGrid{.bits = 3});
        CHECK(quantize<Counting>(SolverOf<GPTQ, Counting>(moments, damped), layer.w, IntegerGrid{.bits = 3})
                  .codes != natural.codes);
        CHECK(count == 2);
        CHECK(quantize<Counting>(SolverOf<GPTQ, Counting>(moments, ordered), layer.w, IntegerGrid{.bits = 3})
                  .codes != natural.codes);
        CHECK(count == 3);
    }
}

TEST_CASE("A report without objectives costs none", "[solver][sharing]") {
    const Layer layer = shared_layer();
    const auto moments = moments_of<Counting>(layer);
    SolverOptions options;
    options.block_size = 16;
    struct Costs {
        CountingBackend::Counts counts;
        Report report;
    };
    const auto solve_with = [&](bool objectives) {
        options.report_objective = objectives;
        moments.forget_factorization();
        Counting::get().counts = {};
        const auto w = upload<Counting>(layer.w);
        const auto result = SolverOf<GPTQ, Counting>(moments, options).quantize(w.view(), IntegerGrid{});
        REQUIRE(result);
        return Costs{Counting::get().counts, result.report};
    };
    const Costs without = solve_with(false);
    CHECK_FALSE(without.report.objective.has_value());
    CHECK_FALSE(without.report.round_to_nearest.has_value());
    CHECK(without.report.seconds.objective == 0);
    CHECK(without.counts.factorizations == 1);
    // before the one panel, and after each of its 4 blocks but the last
    CHECK(without.counts.products == 4);
    CHECK(without.counts.fits == 0);  // the sweep's own
    CHECK(without.counts.roundings == 0);
    CHECK(without.counts.dots == 0);

    const Costs with = solve_with(true);
    CHECK(with.report.objective.has_value());
    CHECK(with.report.round_to_nearest.has_value());
    CHECK(with.report.seconds.objective > 0);
    CHECK(with.counts.factorizations == 1);
    // D' W', and two products with H for each of two candidates
    CHECK(with.counts.products == without.counts.products + 1 + 2 * 2);
    CHECK(with.counts.fits == 1);
    CHECK(with.counts.roundings == 1);
    CHECK(with.counts.dots == 2 * 2);
}

TEST_CASE("Shared and own moments give the same codes in any order of solves", "[solver][sharing]") {
    const Layer layer = shared_layer();
    const auto moments = moments_of<EigenDouble>(layer);
    const IntegerGrid grid{.bits = 3};
    const auto qep = codes_of<QEP, EigenDouble>(layer, {}, grid);
    const auto gptaq = codes_of<GPTAQ, EigenDouble>(layer, {}, grid);
    for (int repeat = 0; repeat < 2; ++repeat) {
        CHECK(quantize<EigenDouble>(SolverOf<GPTAQ, EigenDouble>(moments), layer.w, grid).codes == gptaq);
        CHECK(quantize<EigenDouble>(SolverOf<QEP, EigenDouble>(moments), layer.w, grid).codes == qep);
    }

    // The shared n x n shift and the shift of m right-hand sides agree.
    Layer tall = layer;
    tall.w = random_layer({.out = 100, .in = 60, .tokens = 1, .dead = {}, .seed = 4}).w;
    for (Index j = 0; j < layer.n; ++j) {
        for (Index r = 0; r < layer.m; ++r) tall.w(r, j) = layer.w(r, j);
    }
    const auto rows = quantize<EigenDouble>(SolverOf<QEP, EigenDouble>(moments), tall.w, grid).codes;
    CHECK(std::vector<int>(rows.begin(), rows.begin() + layer.m * layer.n) == qep);
    CHECK(quantize<EigenDouble>(SolverOf<QEP, EigenDouble>(moments), layer.w, grid).codes == qep);
}

TEMPLATE_TEST_CASE("Results are the same bits for any number and order of threads", "[solver][sharing]",
                   RESIDUA_TEST_SCALARS) {
    // enough columns and rows for several tiles, panels, batches and blocks on the diagonal
    const Layer layer = random_layer({.out = 300, .in = 530, .tokens = 600, .dead = {9}, .seed = 8});
    SolverOptions options;
    options.ordering = Ordering::Activation;
    const IntegerGrid grid{.bits = 4};

    struct Result {
        std::vector<Code> codes;
        std::vector<TestType> scales;
        std::vector<TestType> gram;
        std::vector<TestType> cross;
    };
    const auto run = [&](EigenBackend& backend) {
        const auto x = upload<EigenDouble, TestType>(layer.x);
        const auto x_fp = upload<EigenDouble, TestType>(layer.x_fp);
        const auto w = upload<EigenDouble, TestType>(layer.w);
        GPTAQSolver<TestType, EigenBackend> solver(backend, layer.n, options);
        solver.accumulate(x.view(), x_fp.view());
        const auto quantized = solver.quantize(w.view(), grid);
        REQUIRE(quantized);
        return Result{backend.read(quantized.codes.view()), backend.read(quantized.scales.view()),
                      backend.read(solver.moments().gram()), backend.read(solver.moments().cross())};
    };
    EigenBackend one{Executor(1)};
    const Result expected = run(one);
    for (const auto& executor : {Executor(1, backwards), Executor(3, threads), Executor(7, threads)}) {
        EigenBackend backend(executor);
        const Result result = run(backend);
        CHECK(differences(result.codes, expected.codes) == 0);
        CHECK(differences(result.scales, expected.scales) == 0);
        CHECK(differences(result.gram, expected.gram) == 0);
        CHECK(differences(result.cross, expected.cross) == 0);
    }
}

TEST_CASE("An executor says what it cannot do", "[solver][sharing]") {
    CHECK(contains(message_of([] { Executor(0); }), "threads is 0, expected"));
    CHECK(contains(message_of([] { Executor(100000); }), "threads is 100000, expected 1"));
    CHECK(contains(message_of([] { Executor(100000, threads); }), "threads is 100000, expected 1 to 1024"));
    CHECK(contains(message_of([] { Executor(2, Executor::ParallelFor()); }), "parallel_for is empty"));
}
