// A last solve takes the memory of the moments; its result is that of any other solve.

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

template <class Method, class Tag>
Solved solve_and_consume(const Layer& layer, const SolverOptions& options,
                         Inputs inputs = Inputs::WithReference) {
    SolverOf<Method, Tag> solver(Tag::get(), layer.n, options);
    const auto x = upload<Tag>(layer.x);
    const auto x_fp = upload<Tag>(layer.x_fp);
    const auto h = upload<Tag>(layer.h);
    const auto h_fp = upload<Tag>(layer.h_fp);
    const auto w = upload<Tag>(layer.w);
    if (inputs == Inputs::WithReference) solver.accumulate(x.view(), x_fp.view());
    if (inputs == Inputs::WithStream)
        solver.accumulate(x.view(), x_fp.view(), ResidualStream{h.view(), h_fp.view()});
    return fetch<Tag>(solver.quantize_and_consume(w.view(), IntegerGrid{.bits = 3}));
}

}  // namespace

TEMPLATE_TEST_CASE("A solve that uses up its moments gives the same codes", "[solver][consume]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 12, .in = 75, .tokens = 200, .dead = {3}, .seed = 5});
    SolverOptions options;
    options.group_size = 20;
    options.block_size = 16;
    options.ordering = GENERATE(Ordering::Natural, Ordering::Activation, Ordering::GroupAware);
    const IntegerGrid grid{.bits = 3};
    const Inputs inputs = GENERATE(Inputs::WithReference, Inputs::WithStream);
    const auto check = [&](const auto& method) {
        using Method = std::decay_t<decltype(method)>;
        INFO(Method::name);
        CHECK(solve_and_consume<Method, TestType>(layer, options, inputs).codes ==
              codes_of<Method, TestType>(layer, options, grid, method, inputs));
    };
    check(GPTQ{});
    check(GPTAQ{});
    check(ResidualComp{});
    check(QEP{});
    check(Qronos{});
}

TEMPLATE_TEST_CASE("Damping is raised without another copy of H", "[solver][consume]",
                   RESIDUA_TEST_BACKENDS) {
    // fewer tokens than columns: H is singular, and not positive definite for lambda = 0
    const Layer layer = random_layer({.out = 6, .in = 60, .tokens = 10, .seed = 6});
    SolverOptions options;
    options.damping = {.initial = 0, .retry_from = 0.01};
    const Solved solved = solve_and_consume<GPTQ, TestType>(layer, options);
    REQUIRE(solved);
    CHECK(solved.report.damping_retries >= 1);
    SolverOptions direct = options;
    direct.damping = {.initial = solved.report.damping};
    CHECK(solved.codes == codes_of<GPTQ, TestType>(layer, direct, IntegerGrid{.bits = 3}));
}

TEMPLATE_TEST_CASE("Moments that are shared or still needed are not used up", "[solver][consume]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 6, .in = 20, .tokens = 40, .seed = 7});
    const auto moments = moments_of<TestType>(layer);
    const auto w = upload<TestType>(layer.w);
    SolverOptions options;
    CHECK_THROWS_AS(
        (SolverOf<GPTQ, TestType>(moments, options).quantize_and_consume(w.view(), IntegerGrid{})),
        std::invalid_argument);

    SolverOf<GPTQ, TestType> solver(TestType::get(), layer.n, reporting());
    const auto x = upload<TestType>(layer.x);
    solver.accumulate(x.view());
    CHECK_THROWS_AS(solver.quantize_and_consume(w.view(), IntegerGrid{}), std::invalid_argument);
    CHECK(solver.quantize(w.view(), IntegerGrid{}));
}
