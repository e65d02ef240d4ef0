// Numerical trouble has a defined outcome: codes with what it took in the report, or a status and no codes.

#include <limits>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_finite[] = {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity};

SolverOptions groups_of_16() {
    SolverOptions options;
    options.group_size = 16;
    options.block_size = 8;
    return reporting(options);
}

/// Codes in range, positive scales, finite values, objective no worse than that of plain rounding.
template <class Method, class Tag>
void check_sound(const Layer& layer, const SolverOptions& options = groups_of_16(),
                 const Method& method = {}) {
    INFO(Method::name);
    const IntegerGrid grid{.bits = 4};
    const Solved solved = solve<Method, Tag>(layer, options, grid, method);
    REQUIRE(solved.status == Status::Success);
    bool in_range = true;
    for (const int code : solved.codes) in_range = in_range && code >= 0 && code < 16;
    for (const double scale : solved.scales) in_range = in_range && scale > 0 && std::isfinite(scale);
    for (const double zero : solved.zeros) in_range = in_range && zero >= 0 && zero < 16;
    for (const double value : solved.dequantized.data) in_range = in_range && std::isfinite(value);
    CHECK(in_range);
    const Objective& after = *solved.report.objective;
    const Objective& before = *solved.report.round_to_nearest;
    CHECK(std::isfinite(after.symmetric));
    CHECK(std::isfinite(*after.asymmetric));
    if (Method::residuals == Residuals::None) CHECK(after.symmetric <= before.symmetric);
}

template <class Tag>
void check_all_sound(const Layer& layer, const SolverOptions& options = groups_of_16()) {
    check_sound<GPTQ, Tag>(layer, options);
    check_sound<GPTAQ, Tag>(layer, options);
    check_sound<ResidualComp, Tag>(layer, options);
    check_sound<QEP, Tag>(layer, options);
}

template <class Method, class Tag>
Status status_of(const Layer& layer, const SolverOptions& options = groups_of_16()) {
    const Solved solved = solve<Method, Tag>(layer, options);
    if (!solved) {
        CHECK(solved.codes.empty());
        CHECK_FALSE(solved.report.objective.has_value());
    }
    return solved.status;
}

Layer troubled_layer(Index tokens = 100) {
    return random_layer({.out = 20, .in = 40, .tokens = tokens, .dead = {}, .seed = 17});
}

}  // namespace

TEMPLATE_TEST_CASE("Fewer tokens than columns", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    check_all_sound<TestType>(troubled_layer(7));
}

TEMPLATE_TEST_CASE("One token", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    check_all_sound<TestType>(troubled_layer(1));
}

TEMPLATE_TEST_CASE("Duplicated columns", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    Layer layer = troubled_layer();
    for (Index t = 0; t < layer.tokens; ++t) {
        for (Index j = 20; j < 40; ++j) layer.x(t, j) = layer.x(t, j - 20);
    }
    check_all_sound<TestType>(layer);
}

TEMPLATE_TEST_CASE("Singular H without damping is damped, and the report says so", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = troubled_layer(10);  // rank 10 of 40
    SolverOptions options = groups_of_16();
    options.damping = {.initial = 0, .growth = 10, .retry_from = 1e-4, .max_retries = 4};
    const Solved solved = solve<GPTAQ, TestType>(layer, options);
    REQUIRE(solved.status == Status::Success);
    CHECK(solved.report.damping_retries == 1);
    CHECK(solved.report.damping == 1e-4);
    // the same as asking for that damping
    SolverOptions asked = options;
    asked.damping.initial = 1e-4;
    CHECK(codes_of<GPTAQ, TestType>(layer, asked) == solved.codes);

    SECTION("in steps, each one growth larger") {
        options.damping = {.initial = 0, .growth = 10, .retry_from = 1e-20, .max_retries = 30};
        const Solved stepped = solve<GPTAQ, TestType>(layer, options);
        REQUIRE(stepped.status == Status::Success);
        CHECK(stepped.report.damping_retries > 1);
        const double steps = stepped.report.damping_retries - 1;
        CHECK(std::abs(stepped.report.damping / (1e-20 * std::pow(10, steps)) - 1) < 1e-9);
        // what its precision needs: some 100 times the rounding of H
        CHECK(stepped.report.damping < (std::is_same_v<typename TestType::Scalar, double> ? 1e-12 : 1e-3));
    }
    SECTION("but not if retries are forbidden") {
        options.damping.max_retries = 0;
        const Solved refused = solve<GPTAQ, TestType>(layer, options);
        CHECK(refused.status == Status::NotPositiveDefinite);
        CHECK(refused.codes.empty());
        CHECK(refused.report.damping == 0);
        CHECK(refused.report.damping_retries == 0);
    }
    SECTION("nor beyond their limit") {
        options.damping = {.initial = 0, .growth = 2, .retry_from = 1e-30, .max_retries = 3};
        const Solved refused = solve<GPTAQ, TestType>(layer, options);
        CHECK(refused.status == Status::NotPositiveDefinite);
        CHECK(refused.report.damping_retries == 3);
        CHECK(refused.codes.empty());
    }
}

TEMPLATE_TEST_CASE("An indefinite H is refused or damped, never used", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const std::vector<T> gram = {1, 3, 3, 1};  // eigenvalues 4 and -2
    const MomentsOf<TestType> moments(backend, MatrixView<const T>(gram.data(), 2, 2), {}, 5);
    const reference::Matrix w(1, 2, {0.3, -0.2});
    SolverOptions options;
    options.damping.max_retries = 0;
    CHECK(quantize<TestType>(SolverOf<GPTQ, TestType>(moments, options), w, IntegerGrid{}).status ==
          Status::NotPositiveDefinite);
    options.damping.max_retries = 4;
    const Solved solved = quantize<TestType>(SolverOf<GPTQ, TestType>(moments, options), w, IntegerGrid{});
    CHECK(solved.status == Status::Success);
    CHECK(solved.report.damping == Approx(10));  // the first of 0.01, 0.1, 1, 10 above 2
    CHECK(solved.report.damping_retries == 3);
}

TEMPLATE_TEST_CASE("NaN and infinity in x", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    for (const double bad : not_finite) {
        for (const Index column : {0, 23, 39}) {
            CAPTURE(bad, column);
            Layer layer = troubled_layer();
            layer.x(50, column) = bad;
            CHECK(status_of<GPTQ, TestType>(layer) == Status::NonFiniteMoments);
            CHECK(status_of<GPTAQ, TestType>(layer) == Status::NonFiniteMoments);
        }
    }
}

TEMPLATE_TEST_CASE("NaN and infinity in x_fp", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    for (const double bad : not_finite) {
        for (const Index column : {0, 39}) {
            CAPTURE(bad, column);
            Layer layer = troubled_layer();
            layer.x_fp(50, column) = bad;
            CHECK(status_of<GPTAQ, TestType>(layer) == Status::NonFiniteMoments);
            CHECK(status_of<ResidualComp, TestType>(layer) == Status::NonFiniteMoments);
            CHECK(status_of<QEP, TestType>(layer) == Status::NonFiniteMoments);
            // even where the input itself is zero: 0 * NaN
            for (Index t = 0; t < layer.tokens; ++t) layer.x(t, column) = 0;
            CHECK(status_of<GPTAQ, TestType>(layer) == Status::NonFiniteMoments);
        }
    }
}

TEMPLATE_TEST_CASE("NaN and infinity in the weights", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    for (const double bad : not_finite) {
        for (const Index column : {0, 39}) {
            CAPTURE(bad, column);
            Layer layer = troubled_layer();
            layer.w(column == 0 ? 19 : 0, column) = bad;
            CHECK(status_of<GPTQ, TestType>(layer) == Status::NonFiniteWeights);
            CHECK(status_of<ResidualComp, TestType>(layer) == Status::NonFiniteWeights);
            CHECK(status_of<QEP, TestType>(layer) == Status::NonFiniteWeights);
            // in a dead column, too: what is wrong with a file should not depend on the calibration tokens
            for (Index t = 0; t < layer.tokens; ++t) layer.x(t, column) = 0;
            CHECK(status_of<GPTQ, TestType>(layer) == Status::NonFiniteWeights);

            const auto w = upload<TestType>(layer.w);
            const auto rounded =
                round_weights<typename TestType::Scalar>(TestType::get(), w.view(), IntegerGrid{}, Index(16));
            CHECK(rounded.report.status == Status::NonFiniteWeights);
            CHECK(rounded.codes.rows() == 0);
        }
    }
}

TEMPLATE_TEST_CASE("More dead columns than are allowed are a status", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    Layer layer = troubled_layer();
    const auto kill = [&](Index columns) {
        for (Index t = 0; t < layer.tokens; ++t)
            for (Index j = 0; j < columns; ++j) layer.x(t, j) = 0;
    };
    SolverOptions options = groups_of_16();
    kill(4);  // a tenth
    CHECK(status_of<GPTQ, TestType>(layer, options) == Status::Success);
    kill(5);
    CHECK(status_of<GPTQ, TestType>(layer, options) == Status::DeadInputs);
    CHECK(status_of<GPTAQ, TestType>(layer, options) == Status::DeadInputs);
    CHECK(solve<GPTQ, TestType>(layer, options).report.dead_columns == std::vector<Index>{0, 1, 2, 3, 4});
    options.max_dead_inputs = 0.99;
    CHECK(status_of<GPTQ, TestType>(layer, options) == Status::Success);
    kill(40);
    CHECK(status_of<GPTQ, TestType>(layer, options) == Status::DeadInputs);
    CHECK(status_of<QEP, TestType>(layer, options) == Status::DeadInputs);
}

TEMPLATE_TEST_CASE("Rounding to nearest takes the place of a failed solve where it is asked for",
                   "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const std::vector<T> gram = {1, 3, 3, 1};  // indefinite
    const MomentsOf<TestType> moments(backend, MatrixView<const T>(gram.data(), 2, 2), {}, 5);
    reference::Matrix w(1, 2, {0.3, -0.2});
    SolverOptions options;
    options.damping.max_retries = 0;
    options.on_failure = OnFailure::RoundToNearest;
    const auto solved = [&] {
        return quantize<TestType>(SolverOf<GPTQ, TestType>(moments, options), w, IntegerGrid{});
    };
    const Solved rounded = solved();
    REQUIRE(rounded.status == Status::Success);
    CHECK(rounded.report.rounded_because == Status::NotPositiveDefinite);
    CHECK_FALSE(rounded.report.objective.has_value());
    const auto weights = upload<TestType>(w);
    const Solved nearest = fetch<TestType>(round_weights<T>(backend, weights.view(), IntegerGrid{}));
    CHECK(rounded.codes == nearest.codes);
    CHECK(rounded.scales == nearest.scales);

    w(0, 1) = infinity;  // what cannot be rounded either
    CHECK(solved().status == Status::NotPositiveDefinite);
    CHECK(solved().codes.empty());
    w = reference::Matrix(1, 2, {0.3, -0.2});
    options.damping.max_retries = 9;  // nothing failed
    CHECK_FALSE(solved().report.rounded_because.has_value());
    options.progress = [](const Progress&) { return false; };
    CHECK(solved().status == Status::Cancelled);
}

TEMPLATE_TEST_CASE("A negative diagonal is no dead column", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    const std::vector<T> gram = {1, 0, 0, 0, -1, 0, 0, 0, 1};
    const MomentsOf<TestType> moments(TestType::get(), MatrixView<const T>(gram.data(), 3, 3), {}, 5);
    SolverOptions options;
    options.max_dead_inputs = 1;
    const Solved solved = quantize<TestType>(SolverOf<GPTQ, TestType>(moments, options),
                                             reference::Matrix(1, 3, {0.3, -0.2, 0.1}), IntegerGrid{});
    CHECK(solved.status == Status::NotPositiveDefinite);
    CHECK(solved.report.dead_columns.empty());
}

TEMPLATE_TEST_CASE("Saved moments with NaN or infinity anywhere are refused", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    const Index n = 5;
    const reference::Matrix w(1, n, {0.3, -0.2, 0.1, 0.5, -0.4});
    const auto solve_with = [&](Index i, Index j, double bad, bool in_cross) {
        std::vector<T> gram(std::size_t(n * n), T(0)), cross(std::size_t(n * n), T(0));
        for (Index k = 0; k < n; ++k) gram[std::size_t(k * n + k)] = T(2);
        std::vector<T>& values = in_cross ? cross : gram;
        values[std::size_t(i * n + j)] = T(bad);
        if (!in_cross) values[std::size_t(j * n + i)] = T(bad);
        const MatrixView<const T> h(gram.data(), n, n);
        const MomentsOf<TestType> moments(TestType::get(), h, {cross.data(), n, n}, 9);
        const MatrixView<const T> used = moments.gram();
        REQUIRE(used.rows == n);
        const Status expected = Status::NonFiniteMoments;
        CHECK(quantize<TestType>(SolverOf<GPTAQ, TestType>(moments), w, IntegerGrid{}).status == expected);
        CHECK(quantize<TestType>(SolverOf<QEP, TestType>(moments), w, IntegerGrid{}).status == expected);
    };
    for (const double bad : not_finite) {
        for (const bool in_cross : {false, true}) {
            CAPTURE(bad, in_cross);
            solve_with(0, 4, bad, in_cross);
            solve_with(3, 2, bad, in_cross);
            solve_with(1, 1, bad, in_cross);
        }
    }
}

TEMPLATE_TEST_CASE("Inputs that are all zero make all columns dead", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    Layer layer = troubled_layer();
    for (double& v : layer.x.data) v = 0;
    const GroupScales scales = GENERATE(GroupScales::Current, GroupScales::Stale);
    const Index group = GENERATE(-1, 16);
    SolverOptions options = groups_of_16();
    options.published.scales = scales;
    options.group_size = group;
    options.max_dead_inputs = 1;
    const Solved solved = solve<GPTAQ, TestType>(layer, options);
    REQUIRE(solved.status == Status::Success);
    CHECK(solved.report.dead_columns.size() == 40);
    for (const double v : solved.dequantized.data) REQUIRE(v == 0);
    CHECK(solved.report.objective->symmetric == 0);
}

TEMPLATE_TEST_CASE("Dead columns become zero and leave the others alone", "[solver][trouble]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 20, .in = 40, .tokens = 90, .dead = {0, 17, 39}, .seed = 17});
    SolverOptions options;
    options.group_size = 1;  // a scale for every column: nothing but H and D couples them
    options.damping = {.initial = 0.01, .growth = 10, .retry_from = 1e-4, .max_retries = 0};
    const Solved solved = solve<ResidualComp, TestType>(layer, options);
    REQUIRE(solved.status == Status::Success);
    CHECK(solved.report.dead_columns == std::vector<Index>{0, 17, 39});
    for (const Index j : solved.report.dead_columns) {
        for (Index r = 0; r < layer.m; ++r) REQUIRE(solved.dequantized(r, j) == 0);
    }
    Layer other = layer;  // other weights in dead columns
    for (Index r = 0; r < layer.m; ++r) other.w(r, 17) = 5;
    CHECK(codes_of<ResidualComp, TestType>(other, options) == solved.codes);
}

TEMPLATE_TEST_CASE("Weights that are all zero stay zero", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    Layer layer = troubled_layer();
    for (double& v : layer.w.data) v = 0;
    const Symmetry symmetry = GENERATE(Symmetry::None, Symmetry::Restricted, Symmetry::FullRange);
    const bool clip = GENERATE(false, true);
    IntegerGrid grid{.bits = 4, .symmetry = symmetry};
    grid.clip.enabled = clip;
    const auto check = [&](const Solved& solved) {
        REQUIRE(solved.status == Status::Success);
        for (const double v : solved.dequantized.data) REQUIRE(v == 0);
        for (const double scale : solved.scales) REQUIRE(scale == 1);
        CHECK(solved.report.objective->symmetric == 0);
    };
    check(solve<GPTQ, TestType>(layer, groups_of_16(), grid));
    check(solve<ResidualComp, TestType>(layer, groups_of_16(), grid));
    check(solve<QEP, TestType>(layer, groups_of_16(), grid));
}

TEMPLATE_TEST_CASE("One column, one row", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    for (const Index tokens : {1, 5}) {
        check_all_sound<TestType>(random_layer({.out = 1, .in = 1, .tokens = tokens, .dead = {}, .seed = 2}));
        check_all_sound<TestType>(random_layer({.out = 9, .in = 1, .tokens = tokens, .dead = {}, .seed = 3}));
        check_all_sound<TestType>(random_layer({.out = 1, .in = 9, .tokens = tokens, .dead = {}, .seed = 4}));
    }
}

TEMPLATE_TEST_CASE("A condition number of 1e12", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    // x = sum over orthogonal directions of sizes 1 ... 1e-6: H has eigenvalues 1 ... 1e-12
    const Index n = 32;
    Layer layer = random_layer({.out = 20, .in = n, .tokens = 4 * n, .dead = {}, .seed = 31});
    for (Index t = 0; t < layer.tokens; ++t) {
        for (Index j = 0; j < n; ++j) {
            const Index k = t % n;  // one direction a token, by the discrete cosine transform
            const double cosine = std::cos(3.141592653589793 * (double(j) + 0.5) * double(k) / double(n));
            layer.x(t, j) = to_float(std::pow(10, -6.0 * double(k) / double(n - 1)) * cosine);
            layer.x_fp(t, j) = to_float(1.05 * layer.x(t, j));
        }
    }
    SECTION("damped") { check_all_sound<TestType>(layer); }
    SECTION("not damped, unless the precision needs it") {
        // Without damping GPTQ moves errors of any size into directions that the tokens hardly see, and the
        // grids of later groups with them: worse than plain rounding, by the equations. The report must say
        // so.
        SolverOptions options = groups_of_16();
        options.damping = {.initial = 0, .growth = 10, .retry_from = 1e-10, .max_retries = 10};
        const IntegerGrid grid{.bits = 4};
        const Solved solved = solve<GPTQ, TestType>(layer, options, grid);
        REQUIRE(solved.status == Status::Success);
        const double objective = reference::symmetric_objective(layer.w, solved.dequantized, layer.x);
        // Float's rounding of H, 6e-8 of its largest eigenvalue, counts in directions that are seen 1e-12 times as well, into
        // which the errors of weights have gone: measured 2.3e-3.
        const double rounding = std::is_same_v<typename TestType::Scalar, double> ? 1e-3 : 1e-2;
        CHECK(solved.report.objective->symmetric == Approx(objective).epsilon(rounding));
        if (std::is_same_v<typename TestType::Scalar, double>) {
            CHECK(solved.report.damping_retries == 0);
        } else {
            CHECK(solved.report.damping_retries > 0);  // 1e12 is beyond float
            CHECK(solved.report.damping < 1e-4);
        }
    }
}

TEMPLATE_TEST_CASE("Huge and tiny magnitudes", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = troubled_layer();
    const auto scaled = [&](double x, double w) {
        Layer copy = layer;
        for (double& v : copy.x.data) v *= x;
        for (double& v : copy.x_fp.data) v *= x;
        for (double& v : copy.w.data) v *= w;
        return copy;
    };
    const auto expected = codes_of<GPTAQ, TestType>(layer, groups_of_16());
    // within float's range, squares included
    CHECK(codes_of<GPTAQ, TestType>(scaled(0x1p+50, 1), groups_of_16()) == expected);
    CHECK(codes_of<GPTAQ, TestType>(scaled(0x1p-50, 1), groups_of_16()) == expected);
    CHECK(codes_of<GPTAQ, TestType>(scaled(1, 0x1p+90), groups_of_16()) == expected);
    CHECK(codes_of<GPTAQ, TestType>(scaled(1, 0x1p-90), groups_of_16()) == expected);
    check_sound<GPTAQ, TestType>(scaled(0x1p+40, 0x1p+10));
}

TEMPLATE_TEST_CASE("Inputs whose squares leave the range", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    using Limits = std::numeric_limits<typename TestType::Scalar>;
    const Layer layer = troubled_layer();
    const auto inputs_times = [&](int exponent) {
        Layer copy = layer;
        for (double& v : copy.x.data) v = std::ldexp(v, exponent);
        for (double& v : copy.x_fp.data) v = std::ldexp(v, exponent);
        return copy;
    };
    SECTION("at the top: sums that are infinite are no moments") {
        const Layer huge = inputs_times(Limits::max_exponent / 2 + 6);
        CHECK(status_of<GPTQ, TestType>(huge) == Status::NonFiniteMoments);
        CHECK(status_of<GPTAQ, TestType>(huge) == Status::NonFiniteMoments);
    }
    SECTION("at the bottom: sums of a few digits are moments still") {
        // 2^9 times below the normal range, of 2^23 (2^52) steps: H is coarse, but the usual damping is enough.
        const Layer tiny = inputs_times((Limits::min_exponent - 19) / 2);
        check_all_sound<TestType>(tiny);
        const Solved solved = solve<GPTQ, TestType>(tiny, groups_of_16());
        CHECK(solved.report.damping_retries == 0);
        CHECK(solved.report.dead_columns.empty());
        CHECK(solved.report.objective->symmetric < solved.report.round_to_nearest->symmetric);
    }
    SECTION("below it: squares that round to zero make columns dead") {
        const Layer none = inputs_times((Limits::min_exponent - Limits::digits) / 2 - 12);
        const Solved solved = solve<GPTAQ, TestType>(none, groups_of_16());
        CHECK(solved.status == Status::DeadInputs);
        CHECK(solved.report.dead_columns.size() == 40);
        CHECK(solved.codes.empty());
    }
}

TEMPLATE_TEST_CASE("Weights at the ends of the range", "[solver][trouble]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    SolverOptions options = groups_of_16();
    options.report_objective = false;  // squares of such weights have none
    Layer layer = troubled_layer();
    const auto signs_times = [&](double size) {
        Layer copy = layer;
        for (double& v : copy.w.data) v = v > 0 ? size : -size;
        return copy;
    };
    SECTION("near the largest number: the range of a group overflows, and no scale spans it") {
        const Layer largest = signs_times(0.875 * double(std::numeric_limits<T>::max()));
        CHECK(status_of<GPTQ, TestType>(largest, options) == Status::Overflow);
        CHECK(status_of<GPTAQ, TestType>(largest, options) == Status::Overflow);
        CHECK(status_of<ResidualComp, TestType>(largest, options) == Status::Overflow);
        CHECK(status_of<QEP, TestType>(largest, options) == Status::Overflow);
    }
    SECTION("as large as sums of them allow: the codes of small ones") {
        // Scales are stored in float, whatever the weights are in.
        CHECK(codes_of<GPTQ, TestType>(signs_times(0x1p+120), options) ==
              codes_of<GPTQ, TestType>(signs_times(1), options));
        CHECK(codes_of<GPTAQ, TestType>(signs_times(0x1p+120), options) ==
              codes_of<GPTAQ, TestType>(signs_times(1), options));
    }
    SECTION("below the least scale that can be stored: all are nearest to zero") {
        for (double& v : layer.w.data) v *= 0x1p-130;
        for (const Solved& solved :
             {solve<GPTQ, TestType>(layer, options), solve<ResidualComp, TestType>(layer, options),
              solve<QEP, TestType>(layer, options)}) {
            REQUIRE(solved.status == Status::Success);
            for (const double scale : solved.scales) REQUIRE(scale == 0x1p-126);  // the least normal float
            for (const double v : solved.dequantized.data) REQUIRE(v == 0);
        }
    }
}

TEMPLATE_TEST_CASE("A result that overflows is no result", "[solver][trouble]", EigenFloat) {
    // H is tiny and D is not: M = D R^-T is huge, and so are the sums that it adds. GPTQ does not read D.
    Layer layer = random_layer({.out = 4, .in = 8, .tokens = 50, .dead = {}, .seed = 1});
    for (double& v : layer.x.data) v *= 1e-12;
    for (double& v : layer.x_fp.data) v *= 1e25;
    for (double& v : layer.w.data) v *= 1e10;
    CHECK(status_of<GPTAQ, TestType>(layer) == Status::Overflow);
    CHECK(status_of<ResidualComp, TestType>(layer) == Status::Overflow);
    CHECK(status_of<QEP, TestType>(layer) == Status::Overflow);
    CHECK(status_of<Qronos, TestType>(layer) == Status::Overflow);
    CHECK(status_of<GPTQ, TestType>(layer) == Status::Success);
}
