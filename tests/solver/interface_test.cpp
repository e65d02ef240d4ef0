// What a user writes: deduced arguments, one include, and calls that must not compile.

#include <residua/residua.hpp>

#include <type_traits>

#include "catch.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

using Cpu = EigenBackend;

static_assert(std::is_same_v<decltype(GPTQSolver(std::declval<Cpu&>(), 8)), GPTQSolver<float, Cpu>>);
static_assert(std::is_same_v<decltype(GPTAQSolver(std::declval<Cpu&>(), 8, SolverOptions{}, GPTAQ{})),
                             GPTAQSolver<float, Cpu>>);
static_assert(
    std::is_same_v<decltype(QEPSolver(std::declval<const Moments<double, Cpu>&>())), QEPSolver<double, Cpu>>);
static_assert(std::is_base_of_v<Solver<Qronos, float, Cpu>, QronosSolver<float, Cpu>>);
static_assert(std::is_base_of_v<Solver<ResidualComp, float, Cpu>, ResidualCompSolver<float, Cpu>>);
static_assert(std::is_base_of_v<Solver<GPTQResidualComp, float, Cpu>, GPTQResidualCompSolver<float, Cpu>>);

// Moments that a solver shares must outlive it: temporaries are refused.
static_assert(std::is_constructible_v<GPTQSolver<float, Cpu>, const Moments<float, Cpu>&>);
static_assert(!std::is_constructible_v<GPTQSolver<float, Cpu>, Moments<float, Cpu>>);
static_assert(!std::is_constructible_v<Solver<QEP, float, Cpu>, Moments<float, Cpu>&&, SolverOptions>);
static_assert(!std::is_constructible_v<Solver<QEP, float, Cpu>, const Moments<float, Cpu>>);

namespace {

/// The concept lists all that is called on a backend: what has just that solves.
using Archetype = residua::detail::PlanningBackend<Cpu>;
static_assert(Backend<Archetype, float> && Backend<Archetype, double>);
static_assert(Backend<Cpu, float> && Backend<Cpu, double>);

/// A backend without one of the operations is none.
struct NoWorkspace : Cpu {
    template <class U>
    Matrix<U> workspace(Index, Index) = delete;
};
struct NoTransposition : Cpu {
    template <Real T>
    void transpose_in_place(MatrixView<T>) = delete;
};
struct NoMirror : Cpu {
    template <Real T>
    void mirror_lower(MatrixView<T>) = delete;
};
struct NoTimestamp : Cpu {
    void timestamp() = delete;
};
struct NoDoubles : Cpu {
    template <class U>
    requires(!std::is_same_v<U, double>) Matrix<U> allocate(Index rows, Index cols) {
        return Cpu::allocate<U>(rows, cols);
    }
};
static_assert(!Backend<NoWorkspace, float> && !Backend<NoTransposition, float> && !Backend<NoMirror, float>);
static_assert(!Backend<NoTimestamp, float> && !Backend<NoDoubles, float>);

}  // namespace

TEST_CASE("One include and deduced arguments are enough", "[solver][interface]") {
    const Layer layer = random_layer({.out = 8, .in = 64, .tokens = 100});
    const std::vector<float> w(layer.w.data.begin(), layer.w.data.end());
    const std::vector<float> x(layer.x.data.begin(), layer.x.data.end());
    const std::vector<float> x_fp(layer.x_fp.data.begin(), layer.x_fp.data.end());
    const MatrixView weights(w.data(), layer.m, layer.n);

    EigenBackend cpu;
    QEPSolver solver(cpu, layer.n, {.group_size = 32, .report_objective = true});
    solver.accumulate(MatrixView(x.data(), layer.tokens, layer.n),
                      MatrixView(x_fp.data(), layer.tokens, layer.n));
    CHECK(solver.quantize(weights, IntegerGrid{.bits = 3}));
    CHECK(solver.quantize(weights, NF4Grid{}));
    CHECK(solver.quantize(weights, FP8Grid{}));
    CHECK(solver.quantize(weights, Q8_0Grid{}));
    CHECK(solver.quantize(weights, CodebookGrid<4>{.values = {-1, 0, 0.5, 1}}));
    CHECK(workspace_bytes<QEP, float>(cpu, layer.m, layer.n) > 0);

    SECTION("achieved() is what the method minimizes") {
        const auto qep = solver.quantize(weights, IntegerGrid{.bits = 3});
        CHECK(qep.report.achieved() == qep.report.objective->asymmetric);
        const GPTQSolver gptq(solver.moments(), {.group_size = 32, .report_objective = true});
        const auto symmetric = gptq.quantize(weights, IntegerGrid{.bits = 3});
        CHECK(symmetric.report.achieved() == symmetric.report.objective->symmetric);
        const GPTQSolver silent(solver.moments());
        CHECK_FALSE(silent.quantize(weights, IntegerGrid{.bits = 3}).report.achieved().has_value());
    }
}
