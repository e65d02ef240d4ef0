// What holds exactly, or up to rounding, whatever the layer.

#include <numeric>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Where only the order of summation changes, codes at a tie may flip in float, and with them the rest of
// their row.
template <class Tag>
constexpr double may_differ = std::is_same_v<typename Tag::Scalar, double> ? 0.0 : 0.005;

template <class Tag>
bool same_up_to_ties(const std::vector<int>& a, const std::vector<int>& b) {
    return a.size() == b.size() && double(differences(a, b)) <= may_differ<Tag> * double(a.size());
}

Layer usual_layer() { return random_layer({.out = 33, .in = 150, .tokens = 400, .dead = {}, .seed = 7}); }

SolverOptions groups_of(Index group_size, Ordering ordering = Ordering::Natural) {
    SolverOptions options;
    options.group_size = group_size;
    options.ordering = ordering;
    return options;
}

template <class Tag, class Method>
void check_block_size_independence(const Method& method) {
    const Layer layer = usual_layer();
    const auto moments = moments_of<Tag>(layer);
    const IntegerGrid grid{.bits = 3};
    const auto codes_with = [&](const SolverOptions& options) {
        return quantize<Tag>(SolverOf<Method, Tag>(moments, options, method), layer.w, grid).codes;
    };
    for (const Ordering ordering : {Ordering::Natural, Ordering::Activation, Ordering::GroupAware}) {
        for (const Index group : {Index(-1), Index(32), Index(50)}) {
            SolverOptions options = groups_of(group, ordering);
            options.report_objective = false;
            options.block_size = 128;
            const auto expected = codes_with(options);
            for (const Index block : {1, 7, 64, 150, 1024}) {
                options.block_size = block;
                INFO(Method::name << ", block " << block << ", group " << group << ", ordering "
                                  << int(ordering));
                CHECK(same_up_to_ties<Tag>(codes_with(options), expected));
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("The block size changes no code", "[solver][invariants]", RESIDUA_TEST_BACKENDS) {
    check_block_size_independence<TestType>(GPTQ{});
    check_block_size_independence<TestType>(GPTAQ{});
    check_block_size_independence<TestType>(ResidualComp{});
    check_block_size_independence<TestType>(QEP{});
    check_block_size_independence<TestType>(Qronos{});
}

TEMPLATE_TEST_CASE("Without input deviation every method is GPTQ", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    Layer layer = usual_layer();
    layer.x_fp = layer.x;  // D = 0
    const SolverOptions options = groups_of(32);
    const auto expected = codes_of<GPTQ, TestType>(layer, options);
    CHECK(codes_of<GPTAQ, TestType>(layer, options) == expected);
    CHECK(codes_of<QEP, TestType>(layer, options) == expected);
    CHECK(codes_of<Qronos, TestType>(layer, options) == expected);
    CHECK(codes_of<ResidualComp, TestType>(layer, options) ==
          codes_of<GPTQResidualComp, TestType>(layer, options));
}

TEMPLATE_TEST_CASE("Coefficients of zero switch a method's terms off", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = usual_layer();
    SolverOptions options = groups_of(32);
    options.published.view =
        GENERATE(ResidualView::Compensated, ResidualView::Quantized, ResidualView::Clamped);
    const IntegerGrid grid{.bits = 3};
    const auto gptq = codes_of<GPTQ, TestType>(layer, options, grid);
    const auto gptaq = codes_of<GPTAQ, TestType>(layer, options, grid);
    CHECK(codes_of<ResidualComp, TestType>(layer, options, grid, {.alpha = 0.25, .beta = 0}) == gptaq);
    CHECK(codes_of<GPTAQ, TestType>(layer, options, grid, {.alpha = 0}) == gptq);
    CHECK(codes_of<QEP, TestType>(layer, options, grid, {.alpha = 0}) == gptq);
    CHECK(codes_of<GPTQResidualComp, TestType>(layer, options, grid, {.beta = 0}) == gptq);

    SECTION("and others do not") {
        CHECK(gptaq != gptq);
        CHECK(codes_of<ResidualComp, TestType>(layer, options, grid) != gptaq);
        CHECK(codes_of<QEP, TestType>(layer, options, grid) != gptq);
        CHECK(codes_of<GPTQResidualComp, TestType>(layer, options, grid) != gptq);
    }
}

TEMPLATE_TEST_CASE("Scaling the inputs changes no code", "[solver][invariants]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 20, .in = 70, .tokens = 200, .dead = {3}, .seed = 5});
    SolverOptions options = groups_of(32, Ordering::Activation);
    const auto scaled = [&](double factor) {
        Layer copy = layer;
        for (double& v : copy.x.data) v *= factor;
        for (double& v : copy.x_fp.data) v *= factor;
        return copy;
    };
    // Powers of two scale every intermediate exactly, as long as nothing leaves the normal range.
    const auto expected = codes_of<ResidualComp, TestType>(layer, options);
    CHECK(codes_of<ResidualComp, TestType>(scaled(0x1p-20), options) == expected);
    CHECK(codes_of<ResidualComp, TestType>(scaled(0x1p+30), options) == expected);
    CHECK(same_up_to_ties<TestType>(codes_of<ResidualComp, TestType>(scaled(1.7), options), expected));
    CHECK(codes_of<QEP, TestType>(scaled(0x1p+20), options) == codes_of<QEP, TestType>(layer, options));
}

TEMPLATE_TEST_CASE("Scaling the weights scales the scales", "[solver][invariants]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = usual_layer();
    Layer scaled = layer;
    for (double& v : scaled.w.data) v *= 0x1p+10;
    const IntegerGrid grid{.bits = 4, .symmetry = Symmetry::None, .clip = {.enabled = true}};
    const auto before = solve<GPTAQ, TestType>(layer, groups_of(64), grid);
    const auto after = solve<GPTAQ, TestType>(scaled, groups_of(64), grid);
    CHECK(same_up_to_ties<TestType>(after.codes, before.codes));
    std::size_t exact = 0;
    for (std::size_t i = 0; i < before.scales.size(); ++i)
        exact += after.scales[i] == 0x1p+10 * before.scales[i];
    CHECK(double(exact) >= 0.98 * double(before.scales.size()));  // in float two clips may be equally good
}

TEMPLATE_TEST_CASE("Order and batches of tokens do not matter", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = usual_layer();
    const SolverOptions options = groups_of(50);
    const auto expected = codes_of<GPTAQ, TestType>(layer, options);

    SECTION("permuted tokens") {
        Layer reversed = layer;
        for (Index t = 0; t < layer.tokens; ++t) {
            for (Index j = 0; j < layer.n; ++j) {
                reversed.x(t, j) = layer.x(layer.tokens - 1 - t, j);
                reversed.x_fp(t, j) = layer.x_fp(layer.tokens - 1 - t, j);
            }
        }
        CHECK(same_up_to_ties<TestType>(codes_of<GPTAQ, TestType>(reversed, options), expected));
    }
    SECTION("batches, in one solver or in moments that are merged") {
        const auto x = upload<TestType>(layer.x);
        const auto x_fp = upload<TestType>(layer.x_fp);
        SolverOf<GPTAQ, TestType> solver(TestType::get(), layer.n, options);
        MomentsOf<TestType> first(TestType::get(), layer.n);
        MomentsOf<TestType> second(TestType::get(), layer.n);
        for (Index begin = 0; begin < layer.tokens; begin += 90) {
            const Index count = std::min<Index>(90, layer.tokens - begin);
            const auto batch = x.view().row_range(begin, count);
            const auto batch_fp = x_fp.view().row_range(begin, count);
            solver.accumulate(batch, batch_fp);
            (begin < 180 ? first : second).accumulate(batch, batch_fp);
        }
        first.merge(second);
        CHECK(solver.moments().tokens() == layer.tokens);
        CHECK(first.tokens() == layer.tokens);
        CHECK(same_up_to_ties<TestType>(quantize<TestType>(solver, layer.w, IntegerGrid{}).codes, expected));
        const SolverOf<GPTAQ, TestType> merged(first, options);
        CHECK(same_up_to_ties<TestType>(quantize<TestType>(merged, layer.w, IntegerGrid{}).codes, expected));
    }
}

TEMPLATE_TEST_CASE("Output rows do not see each other", "[solver][invariants]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 70, .in = 64, .tokens = 150, .dead = {}, .seed = 3});
    const SolverOptions options = groups_of(16);
    const auto together = solve<ResidualComp, TestType>(layer, options);
    Layer alone = layer;
    for (const Index r : {0, 33, 69}) {
        alone.w = reference::Matrix(1, layer.n);
        for (Index j = 0; j < layer.n; ++j) alone.w(0, j) = layer.w(r, j);
        const auto solved = solve<ResidualComp, TestType>(alone, options);
        const auto first = together.codes.begin() + r * layer.n;
        CHECK(same_up_to_ties<TestType>(solved.codes, std::vector<int>(first, first + layer.n)));
    }
}

TEMPLATE_TEST_CASE("Dequantized weights encode to the same codes", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    const Layer layer = usual_layer();
    IntegerGrid grid{.bits = 4};
    grid.bits = GENERATE(2, 4, 8);
    grid.symmetry = GENERATE(Symmetry::None, Symmetry::Restricted, Symmetry::FullRange);
    grid.scale_type = GENERATE(ScaleType::Float32, ScaleType::Float16, ScaleType::BFloat16);
    const auto solved = solve<GPTAQ, TestType>(layer, groups_of(32, Ordering::Activation), grid);
    std::size_t moved = 0;
    for (Index r = 0; r < layer.m; ++r) {
        for (Index j = 0; j < layer.n; ++j) {
            const auto g =
                static_cast<std::size_t>(r * solved.groups + solved.group_index[static_cast<std::size_t>(j)]);
            // with what a file keeps: float32 scales of the grid's scale type
            const float scale = static_cast<float>(solved.scales[g]);
            REQUIRE(double(scale) == solved.scales[g]);
            REQUIRE(solved.scales[g] == reference::round_scale(solved.scales[g], grid.scale_type));
            const auto value = static_cast<T>(solved.dequantized(r, j));
            const GridParams<T> params{static_cast<T>(scale), static_cast<T>(solved.zeros[g])};
            moved += grid.encode(value, params) != solved.codes[static_cast<std::size_t>(r * layer.n + j)];
        }
    }
    CHECK(moved == 0);
}

TEMPLATE_TEST_CASE("Group-aware order keeps the stored group index monotonic", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = usual_layer();
    const auto aware = solve<GPTQ, TestType>(layer, groups_of(32, Ordering::GroupAware));
    CHECK(std::is_sorted(aware.group_index.begin(), aware.group_index.end()));
    CHECK(aware.groups == 5);
    const auto activation = solve<GPTQ, TestType>(layer, groups_of(32, Ordering::Activation));
    CHECK_FALSE(std::is_sorted(activation.group_index.begin(), activation.group_index.end()));
    SolverOptions fixed = groups_of(32, Ordering::Activation);
    fixed.static_groups = true;
    const auto fixed_groups = solve<GPTQ, TestType>(layer, fixed);
    CHECK(fixed_groups.group_index == aware.group_index);
}

namespace {

/// S, the inverse of the first `width` rows and columns of H^-1, H damped. A row with the error E in its first group
/// loses E S E': the least that is left when all later columns make up for it.
reference::Matrix metric_of_first_group(const Layer& layer, Index width) {
    reference::Matrix h = reference::moments(layer.x).h;
    double trace = 0;
    for (Index j = 0; j < layer.n; ++j) trace += h(j, j);
    for (Index j = 0; j < layer.n; ++j) h(j, j) += SolverOptions{}.damping.initial * trace / double(layer.n);
    const reference::Matrix whole = reference::inverse(h);
    reference::Matrix part(width, width);
    for (Index i = 0; i < width; ++i)
        for (Index j = 0; j < width; ++j) part(i, j) = whole(i, j);
    return reference::inverse(part);
}

/// No row of the first group loses more by the search by loss than by norm, nor with more survivors; all together
/// lose less.
template <class Tag>
void check_scale_search(IntegerGrid grid, Index width) {
    const Layer layer = random_layer({.out = 30, .in = 96, .tokens = 300, .dead = {}, .seed = 11});
    const auto moments = moments_of<Tag>(layer);
    const reference::Matrix metric = metric_of_first_group(layer, width);
    // of the sums in float
    constexpr double slack = std::is_same_v<typename Tag::Scalar, double> ? 1 + 1e-9 : 1 + 1e-4;
    const auto losses = [&](ScaleSearch search, int survivors) {
        grid.clip.enabled = true;
        grid.clip.search = search;
        grid.clip.survivors = survivors;
        const auto solved = quantize<Tag>(SolverOf<GPTQ, Tag>(moments, groups_of(width)), layer.w, grid);
        REQUIRE(solved);
        std::vector<double> of_rows;
        for (Index r = 0; r < layer.m; ++r) {
            const auto e = [&](Index k) { return layer.w(r, k) - solved.dequantized(r, k); };
            double loss = 0;
            for (Index i = 0; i < width; ++i)
                for (Index j = 0; j < width; ++j) loss += e(i) * metric(i, j) * e(j);
            of_rows.push_back(loss);
        }
        return of_rows;
    };
    const auto sum = [](const std::vector<double>& values) {
        return std::accumulate(values.begin(), values.end(), 0.0);
    };
    std::vector<double> worst = losses(ScaleSearch::Norm, 1);
    CHECK(losses(ScaleSearch::Loss, 1) == worst);
    const double by_norm = sum(worst);
    for (const int survivors : {8, 50}) {
        CAPTURE(grid.bits, int(grid.symmetry), width, survivors);
        const std::vector<double> found = losses(ScaleSearch::Loss, survivors);
        bool never_worse = true;
        for (std::size_t r = 0; r < found.size(); ++r)
            never_worse = never_worse && found[r] <= slack * worst[r];
        CHECK(never_worse);
        CHECK(sum(found) < 0.99 * by_norm);
        worst = found;
    }
}

}  // namespace

TEMPLATE_TEST_CASE("The scale search by loss loses no more than the one by norm", "[solver][invariants]",
                   RESIDUA_TEST_BACKENDS) {
    for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted, Symmetry::FullRange}) {
        for (const Index width : {32, 96})
            check_scale_search<TestType>({.bits = 2, .symmetry = symmetry}, width);
        check_scale_search<TestType>({.bits = 4, .symmetry = symmetry, .scale_type = ScaleType::Float16}, 50);
    }
}

TEMPLATE_TEST_CASE("Scaling the inputs changes nothing that the scale search by loss finds",
                   "[solver][invariants]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 20, .in = 70, .tokens = 200, .dead = {3}, .seed = 5});
    const IntegerGrid grid{.bits = 3, .clip = {.enabled = true, .search = ScaleSearch::Loss}};
    // A power of two scales every intermediate exactly.
    Layer scaled = layer;
    for (double& v : scaled.x.data) v *= 0x1p+30;
    for (double& v : scaled.x_fp.data) v *= 0x1p+30;
    for (const Index group : {Index(32), SolverOptions::per_channel}) {
        const auto expected = solve<QEP, TestType>(layer, groups_of(group), grid);
        const auto found = solve<QEP, TestType>(scaled, groups_of(group), grid);
        CHECK(found.codes == expected.codes);
        CHECK(found.scales == expected.scales);
    }
}
