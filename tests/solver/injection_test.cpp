// A backend whose k-th operation fails, for every k: the failure reaches the caller, and what the caller holds is as it was.

#include <optional>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/counting_backend.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

Layer injected_layer() { return random_layer({.out = 3, .in = 16, .tokens = 40, .dead = {2}, .seed = 5}); }

/// Lets `call` fail at its first operation, its second and so on, until it gets through; after_failure() looks at what
/// each failure left behind. How many there were.
template <class Call, class AfterFailure>
int fail_at_every_operation(Call call, AfterFailure after_failure) {
    CountingBackend& backend = Counting::get();
    for (int k = 0;; ++k) {
        backend.operations_left = k;
        bool failed = false;
        try {
            call();
        } catch (const InjectedFailure&) {
            failed = true;
        }
        backend.operations_left = -1;
        if (!failed) return k;
        CAPTURE(k);
        after_failure();
    }
}

template <class Method>
void check_failing_solves() {
    INFO(Method::name);
    const Layer layer = injected_layer();
    const auto w = upload<Counting>(layer.w);
    SolverOptions options;
    options.group_size = 8;
    options.block_size = 8;
    options.refinement.rounds = 1;
    options.report_objective = true;
    options.on_failure = OnFailure::RoundToNearest;  // of a method, not of the machine
    const auto moments = moments_of<Counting>(layer);
    const SolverOf<Method, Counting> solver(moments, options);
    const auto expected = fetch<Counting>(solver.quantize(w.view(), IntegerGrid{.bits = 3}));
    moments.forget_factorization();
    const auto solve_again = [&] {
        const auto again = fetch<Counting>(solver.quantize(w.view(), IntegerGrid{.bits = 3}));
        CHECK(again.codes == expected.codes);
        CHECK(again.scales == expected.scales);
        moments.forget_factorization();
    };
    const int failures = fail_at_every_operation(
        [&] { (void)solver.quantize(w.view(), IntegerGrid{.bits = 3}); }, solve_again);
    CHECK(failures > 30);
    solve_again();
}

}  // namespace

TEST_CASE("A solve whose backend fails ends in its exception and changes nothing", "[solver][injection]") {
    check_failing_solves<GPTQ>();
    check_failing_solves<ResidualComp>();
    check_failing_solves<QEP>();
}

TEST_CASE("Moments whose backend fails are as before, or refuse to be used", "[solver][injection]") {
    const Layer layer = injected_layer();
    const auto x = upload<Counting>(layer.x);
    const auto x_fp = upload<Counting>(layer.x_fp);
    const auto w = upload<Counting>(layer.w);
    const auto whole = moments_of<Counting>(layer);
    auto& backend = Counting::get();
    MomentsOf<Counting> twice(backend, layer.n);
    for (int batch = 0; batch < 2; ++batch) twice.accumulate(x.view(), x_fp.view());
    const auto gram = backend.read(twice.gram());
    std::optional<MomentsOf<Counting>> moments;
    const auto begin = [&] {
        moments.emplace(backend, layer.n);
        moments->accumulate(x.view(), x_fp.view());
    };
    int incomplete = 0;
    const auto check = [&] {
        const std::string text = message_of([&] { moments->accumulate(x.view(), x_fp.view()); });
        CAPTURE(text);
        if (text.empty()) {
            CHECK(backend.read(moments->gram()) == gram);
        } else {
            ++incomplete;
            CHECK(contains(text, "left incomplete by an error"));
            const SolverOf<GPTQ, Counting> solver(*moments);
            for (const std::string& refusal :
                 {message_of([&] { (void)solver.quantize(w.view(), IntegerGrid{}); }),
                  message_of([&] { (void)moments->gram(); }), message_of([&] { (void)moments->cross(); })})
                CHECK(contains(refusal, "left incomplete by an error"));
        }
        begin();
    };
    begin();
    CHECK(fail_at_every_operation([&] { moments->accumulate(x.view(), x_fp.view()); }, check) >= 2);
    begin();
    CHECK(fail_at_every_operation([&] { moments->merge(whole); }, check) >= 2);
    CHECK(incomplete > 0);
}
