// Grids with parameters of two levels against their naive twin (support/two_level_reference.hpp), and what holds for
// them in particular.

#include "catch.hpp"
#include "residua/solver/workspace.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"
#include "support/two_level_reference.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// In double, no code is as close to a tie as 1e-13. In float, guesses that are about as good as the best are chosen now
// and then, and the codes of the family and all behind it follow: measured 0.78.
template <class T>
constexpr double least_agreement_of_two_levels = std::is_same_v<T, double> ? 1.0 : 0.7;

// Other codes are about as good: measured 0.024 on these few rows.
constexpr double same_objective = 0.05;

template <class Method, class Tag, class G>
void check_two_levels(const G& grid, const SolverOptions& options, const LayerShape& shape) {
    const Layer layer = random_layer(shape);
    const Method method;
    CAPTURE(Method::name, grid.levels(), grid.family(), shape.in, options.block_size, int(options.ordering),
            options.static_groups);
    const Solved solved = solve<Method, Tag>(layer, options, grid, method);
    REQUIRE(solved.status == Status::Success);
    SolverOptions known = options;
    known.group_size = G::group_size;
    const auto expected =
        reference::solve(settings_of(method), layer.w, reference::moments(layer.x, layer.x_fp), known, grid);
    CHECK(solved.group_index == expected.group_index);
    const auto agreement =
        1 - double(differences(solved.codes, expected.codes)) / double(expected.codes.size());
    CHECK(agreement >= least_agreement_of_two_levels<typename Tag::Scalar>);
    if (std::is_same_v<typename Tag::Scalar, double>) {
        CHECK(differences(solved.scales, expected.scales) == 0);
        CHECK(differences(solved.zeros, expected.zeros) == 0);
        CHECK(differences(solved.dequantized.data, expected.dequantized.data) == 0);
    }
    const double error = reference::symmetric_objective(layer.w, solved.dequantized, layer.x);
    const double known_error = reference::symmetric_objective(layer.w, expected.dequantized, layer.x);
    CHECK(std::abs(error - known_error) <= same_objective * known_error);
}

}  // namespace

TEMPLATE_TEST_CASE("Two-level grids equal their reference", "[solver][reference][two_level]",
                   RESIDUA_TEST_BACKENDS) {
    const LayerShape whole = {.out = 7, .in = 512, .tokens = 700, .dead = {3, 300}};
    const LayerShape odd = {
        .out = 34, .in = 300, .tokens = 400};  // a family of three groups, one of 12 columns
    SECTION("natural order, blocks of every kind") {
        check_two_levels<GPTQ, TestType>(KQuantGrid<32>{.bits = 4}, {}, whole);
        check_two_levels<GPTQ, TestType>(KQuantGrid<32>{.bits = 5}, {.block_size = 96}, whole);
        check_two_levels<QEP, TestType>(KQuantGrid<16>{.bits = 6}, {.block_size = 512}, whole);
        check_two_levels<QEP, TestType>(KQuantGrid<16>{.bits = 2}, {}, odd);
        check_two_levels<QEP, TestType>(KQuantGrid<16>{.bits = 3}, {}, odd);
        check_two_levels<GPTQ, TestType>(IQ4Grid{.nested = true}, {}, whole);
        check_two_levels<GPTQ, TestType>(IQ4Grid{.nested = false}, {}, odd);
    }
    SECTION("fitted beforehand") {
        check_two_levels<QEP, TestType>(KQuantGrid<16>{.bits = 3},
                                        {.ordering = Ordering::Activation, .static_groups = true}, odd);
        check_two_levels<GPTQ, TestType>(KQuantGrid<32>{.bits = 4}, {.static_groups = true}, whole);
    }
    SECTION("families that the order keeps together") {
        check_two_levels<QEP, TestType>(KQuantGrid<16>{.bits = 2}, {.ordering = Ordering::GroupAware}, whole);
        check_two_levels<GPTQ, TestType>(KQuantGrid<32>{.bits = 4}, {.ordering = Ordering::Activation},
                                         whole);
    }
}

TEMPLATE_TEST_CASE("Rounding onto two-level grids equals its reference", "[solver][reference][two_level]",
                   RESIDUA_TEST_DOUBLE_BACKENDS) {
    const Layer layer = random_layer({.out = 40, .in = 512, .tokens = 2});
    const auto w = upload<TestType>(layer.w);
    const auto check = [&](const auto& grid) {
        SolverOptions options;
        options.group_size = grid.group_size;
        const auto solved =
            fetch<TestType>(round_weights<typename TestType::Scalar>(TestType::get(), w.view(), grid));
        const auto expected = reference::solve({reference::Method::RoundToNearest, 0, 0}, layer.w,
                                               reference::moments(layer.x), options, grid);
        CHECK(differences(solved.codes, expected.codes) == 0);
        CHECK(differences(solved.scales, expected.scales) == 0);
        CHECK(differences(solved.zeros, expected.zeros) == 0);
    };
    check(KQuantGrid<16>{.bits = 2});
    check(KQuantGrid<16>{.bits = 6});
    check(KQuantGrid<32>{.bits = 5});
}

TEMPLATE_TEST_CASE("Groups of zeros and constants have two-level parameters", "[solver][two_level]",
                   RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    reference::Matrix w(3, 256);
    for (Index j = 0; j < 256; ++j) {
        w(1, j) = j / 32 % 2 == 0 ? 0.5 : -0.25;  // all weights of a group alike, and of one sign
        w(2, j) = j == 100 ? 1e-12 : 0;           // less than float16 holds
    }
    const auto uploaded = upload<TestType>(w);
    const auto check = [&](const auto& grid) {
        CAPTURE(grid.levels());
        const Solved q = fetch<TestType>(round_weights<T>(TestType::get(), uploaded.view(), grid));
        REQUIRE(q);
        // A scale has at least five bits beside the codes' own, and the error of float16 is less.
        constexpr double relative = 1.0 / 32;
        for (Index j = 0; j < 256; ++j) {
            CHECK(q.dequantized(0, j) == 0);
            CHECK(std::abs(q.dequantized(1, j) - w(1, j)) <= relative * 0.5);
            CHECK(std::abs(q.dequantized(2, j)) <= 1e-5);
        }
    };
    check(KQuantGrid<32>{.bits = 4});
    check(KQuantGrid<16>{.bits = 6});
    check(KQuantGrid<16>{.bits = 3});
}

TEST_CASE("The plan of a two-level solve counts its family", "[solver][two_level]") {
    auto& backend = EigenFloat::get();
    const KQuantGrid<32> grid{.bits = 4};
    constexpr Index out = 8192;  // enough for the slab, and not the factorization, to take the most
    const auto planned = [&](const SolverOptions& options) {
        return workspace_bytes<GPTQ, float>(backend, out, 512, options, {}, grid);
    };
    const auto family = static_cast<std::size_t>(backend.slab_rows(512, out) * 256) * sizeof(float);
    CHECK(planned({}) == planned({.static_groups = true}) + family);
}

TEMPLATE_TEST_CASE("Two-level grids do not depend on the block size", "[solver][two_level]",
                   RESIDUA_TEST_DOUBLE_BACKENDS) {
    const Layer layer = random_layer({.out = 20, .in = 768, .tokens = 900});
    const auto codes = [&](Index block_size) {
        return codes_of<GPTQ, TestType>(layer, {.block_size = block_size}, KQuantGrid<32>{.bits = 4});
    };
    const auto expected = codes(128);
    for (const Index block_size : {Index(100), Index(256), Index(700)}) CHECK(codes(block_size) == expected);
}

TEMPLATE_TEST_CASE("A refinement of a two-level grid keeps its parameters and lowers the objective",
                   "[solver][two_level]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 20, .in = 512, .tokens = 700});
    const KQuantGrid<32> grid{.bits = 4};
    SolverOptions options;
    const Solved swept = solve<GPTQ, TestType>(layer, options, grid);
    options.refinement.rounds = 1;
    const Solved refined = solve<GPTQ, TestType>(layer, options, grid);
    REQUIRE(refined);
    CHECK(refined.scales == swept.scales);
    CHECK(refined.zeros == swept.zeros);
    const auto& steps = refined.report.refinement;
    REQUIRE(steps.size() == 3);
    CHECK(steps[1].changed_codes > 0);
    CHECK(steps[1].objective < steps[0].objective);
    CHECK(steps[2].objective <= steps[1].objective);
    CHECK(reference::symmetric_objective(layer.w, refined.dequantized, layer.x) <
          reference::symmetric_objective(layer.w, swept.dequantized, layer.x));
}

TEMPLATE_TEST_CASE("Two-level grids refuse what they do not have", "[solver][two_level]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 2, .in = 256, .tokens = 300});
    const auto message = [&]<int Columns>(SolverOptions options, const KQuantGrid<Columns>& grid) {
        using Method = std::conditional_t<Columns == 16, QEP, GPTQ>;
        return message_of([&] { (void)solve<Method, TestType>(layer, options, grid); });
    };
    CHECK(contains(message({.group_size = 256}, KQuantGrid<32>{.bits = 4}),
                   "SolverOptions: group_size is 256, expected 32, the only size that this grid has"));
    CHECK(contains(message({}, KQuantGrid<32>{.bits = 3}), "KQuantGrid<32>: bits is 3, expected 4 or 5"));
    CHECK(contains(message({}, KQuantGrid<16>{.bits = 4}), "KQuantGrid<16>: bits is 4, expected 2, 3 or 6"));
    CHECK(contains(message({.published = {.scales = GroupScales::Stale}}, KQuantGrid<32>{.bits = 4}),
                   "SolverOptions: published is what integer grids alone have"));
}
