// H and D against plain sums, for every way that tokens arrive.

#include <limits>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Sums over some hundred tokens in the element type, against double.
template <class Tag>
constexpr double sum_within = std::is_same_v<typename Tag::Scalar, double> ? 1e-13 : 1e-5;

/// Largest difference relative to sqrt(A_ii B_jj): what rounding of sums can do.
double distance(const reference::Matrix& a, const reference::Matrix& b, const reference::Matrix& h) {
    double worst = a.rows == b.rows && a.cols == b.cols ? 0 : 1;
    double size = 0;
    for (Index i = 0; i < h.rows; ++i) size = std::max(size, h(i, i));
    for (std::size_t i = 0; i < a.data.size() && worst < 1; ++i)
        worst = std::max(worst, std::abs(a.data[i] - b.data[i]) / size);
    return worst;
}

template <class Tag>
void check_sums(const MomentsOf<Tag>& moments, const reference::Moments& expected,
                bool has_reference = true) {
    CHECK(distance(download<Tag>(moments.gram()), expected.h, expected.h) <= sum_within<Tag>);
    CHECK(moments.has_reference() == has_reference);
    if (has_reference) {
        CHECK(distance(download<Tag>(moments.cross()), expected.d, expected.h) <= sum_within<Tag>);
    } else {
        CHECK(moments.cross().data == nullptr);
    }
    CHECK(moments.has_residual_stream() == (expected.stream.rows > 0));
    if (expected.stream.rows > 0) {
        const auto stream = download<Tag>(moments.stream_cross());
        CHECK(distance(stream, expected.stream, expected.h) <= sum_within<Tag>);
    } else {
        CHECK(moments.stream_cross().data == nullptr);
    }
}

/// x and x_fp as a file of element type In has them.
template <Element In>
Layer rounded_to(Layer layer) {
    for (auto* matrix : {&layer.x, &layer.x_fp, &layer.h, &layer.h_fp}) {
        for (double& v : matrix->data) {
            if constexpr (std::is_same_v<In, float16>) v = float(float16(static_cast<float>(v)));
            if constexpr (std::is_same_v<In, bfloat16>) v = float(bfloat16(static_cast<float>(v)));
        }
    }
    return layer;
}

template <class Tag, Element In>
void check_element_type() {
    const Layer layer =
        rounded_to<In>(random_layer({.out = 11, .in = 37, .tokens = 55, .dead = {5}, .seed = 1}));
    const auto x = upload<Tag, In>(layer.x);
    const auto x_fp = upload<Tag, In>(layer.x_fp);
    const auto h = upload<Tag, In>(layer.h);
    const auto h_fp = upload<Tag, In>(layer.h_fp);
    const ResidualStream stream{h.view(), h_fp.view()};
    MomentsOf<Tag> with(Tag::get(), layer.n);
    with.accumulate(x.view(), x_fp.view());
    check_sums<Tag>(with, reference::moments(layer.x, layer.x_fp));
    CHECK(with.tokens() == 55);
    MomentsOf<Tag> without(Tag::get(), layer.n);
    without.accumulate(x.view());
    check_sums<Tag>(without, reference::moments(layer.x), false);

    auto expected = reference::moments(layer.x, layer.x_fp);
    expected.stream = reference::stream_moments(layer.h, layer.h_fp, layer.x);
    MomentsOf<Tag> with_stream(Tag::get(), layer.n);
    with_stream.accumulate(x.view(), x_fp.view(), stream);
    check_sums<Tag>(with_stream, expected);
    MomentsOf<Tag> stream_alone(Tag::get(), layer.n);
    stream_alone.accumulate(x.view(), stream);
    check_sums<Tag>(stream_alone, expected, false);
}

}  // namespace

TEMPLATE_TEST_CASE("Moments are sums of outer products, of any element type", "[moments]",
                   RESIDUA_TEST_BACKENDS) {
    check_element_type<TestType, float>();
    check_element_type<TestType, double>();
    check_element_type<TestType, float16>();
    check_element_type<TestType, bfloat16>();
}

TEMPLATE_TEST_CASE("Moments of more columns and tokens than any tile or batch", "[moments]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 1, .in = 300, .tokens = 1100, .dead = {}, .seed = 2});
    check_sums<TestType>(moments_of<TestType>(layer), reference::moments(layer.x, layer.x_fp));
    const auto gram = download<TestType>(moments_of<TestType>(layer, Inputs::Quantized).gram());
    bool symmetric = true;
    for (Index i = 0; i < layer.n; ++i)
        for (Index j = 0; j < i; ++j) symmetric = symmetric && gram(i, j) == gram(j, i);
    CHECK(symmetric);
}

TEMPLATE_TEST_CASE("Views with a stride are read in place", "[moments]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 1, .in = 40, .tokens = 30, .dead = {}, .seed = 3});
    const auto x = upload<TestType>(layer.x);
    const auto x_fp = upload<TestType>(layer.x_fp);
    reference::Matrix part(10, 17);
    reference::Matrix part_fp(10, 17);
    for (Index t = 0; t < 10; ++t) {
        for (Index j = 0; j < 17; ++j) {
            part(t, j) = layer.x(t + 4, j + 9);
            part_fp(t, j) = layer.x_fp(t + 20, j + 23);
        }
    }
    MomentsOf<TestType> moments(TestType::get(), 17);
    moments.accumulate(x.view().block(4, 9, 10, 17), x_fp.view().block(20, 23, 10, 17));
    check_sums<TestType>(moments, reference::moments(part, part_fp));
}

TEMPLATE_TEST_CASE("Weights multiply tokens, and zero masks them", "[moments]", RESIDUA_TEST_BACKENDS) {
    Layer layer = random_layer({.out = 1, .in = 25, .tokens = 40, .dead = {}, .seed = 4});
    std::vector<float> weights;
    for (Index t = 0; t < 40; ++t) weights.push_back(t % 3 == 0 ? 0.0f : 0.25f * static_cast<float>(t));
    const auto expected = reference::moments(layer.x, layer.x_fp, weights);
    // padding may hold anything
    for (Index t = 0; t < 40; t += 3) {
        for (Index j = 0; j < 25; ++j) {
            layer.x(t, j) = std::numeric_limits<double>::quiet_NaN();
            layer.x_fp(t, j) = std::numeric_limits<double>::infinity();
        }
    }
    const auto x = upload<TestType>(layer.x);
    const auto x_fp = upload<TestType>(layer.x_fp);
    MomentsOf<TestType> moments(TestType::get(), 25);
    moments.accumulate(x.view(), x_fp.view(), weights);
    check_sums<TestType>(moments, expected);
    CHECK(moments.tokens() == 26);
    MomentsOf<TestType> without(TestType::get(), 25);
    without.accumulate(x.view(), weights);
    check_sums<TestType>(without, expected, false);

    SECTION("an integral weight is a repeated token") {
        const Layer plain = random_layer({.out = 1, .in = 25, .tokens = 3, .dead = {}, .seed = 5});
        reference::Matrix repeated(4, 25);
        for (Index t = 0; t < 4; ++t)
            for (Index j = 0; j < 25; ++j) repeated(t, j) = plain.x(std::min<Index>(t, 2), j);
        const auto tokens = upload<TestType>(plain.x);
        const std::vector<float> twice = {1, 1, 2};
        MomentsOf<TestType> weighted(TestType::get(), 25);
        weighted.accumulate(tokens.view(), twice);
        check_sums<TestType>(weighted, reference::moments(repeated), false);
        CHECK(weighted.tokens() == 3);
    }
    SECTION("a batch that is all padding counts for nothing") {
        MomentsOf<TestType> padded(TestType::get(), 25);
        padded.accumulate(x.view(), std::vector<float>(40, 0.0f));
        CHECK(padded.tokens() == 0);
        const auto gram = download<TestType>(padded.gram());
        for (const double v : gram.data) CHECK(v == 0);
    }
}

TEMPLATE_TEST_CASE("Batches and merged moments add up", "[moments]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = random_layer({.out = 1, .in = 33, .tokens = 90, .dead = {}, .seed = 6});
    const auto x = upload<TestType>(layer.x);
    const auto x_fp = upload<TestType>(layer.x_fp);
    const auto expected = reference::moments(layer.x, layer.x_fp);
    MomentsOf<TestType> batches(TestType::get(), 33);
    MomentsOf<TestType> first(TestType::get(), 33);
    MomentsOf<TestType> second(TestType::get(), 33);
    for (Index t = 0; t < 90; t += 30) {
        const auto part = x.view().row_range(t, 30);
        const auto part_fp = x_fp.view().row_range(t, 30);
        batches.accumulate(part, part_fp);
        (t == 0 ? first : second).accumulate(part, part_fp);
        batches.gram();  // looking at it changes nothing
    }
    check_sums<TestType>(batches, expected);
    CHECK(batches.tokens() == 90);

    SECTION("merge") {
        second.gram();
        first.merge(second);
        check_sums<TestType>(first, expected);
        CHECK(first.tokens() == 90);
        CHECK(second.tokens() == 60);
    }
    SECTION("into and of empty moments") {
        MomentsOf<TestType> empty(TestType::get(), 33);
        batches.merge(empty);
        check_sums<TestType>(batches, expected);
        empty.merge(batches);
        check_sums<TestType>(empty, expected);
        CHECK(empty.tokens() == 90);
    }
    SECTION("moments that are empty take the kind of the other") {
        MomentsOf<TestType> without(TestType::get(), 33);
        without.accumulate(x.view());
        MomentsOf<TestType> empty(TestType::get(), 33);  // a batch of both inputs, all of it padding
        empty.accumulate(x.view(), x_fp.view(), std::vector<float>(90, 0.0f));
        empty.merge(without);
        check_sums<TestType>(empty, expected, false);
    }
}

TEMPLATE_TEST_CASE("Saved moments are the moments", "[moments]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    const Layer layer = random_layer({.out = 6, .in = 20, .tokens = 60, .dead = {3}, .seed = 7});
    const auto moments = moments_of<TestType>(layer);
    auto& backend = TestType::get();
    const std::vector<T> gram = backend.read(moments.gram());
    const std::vector<T> cross = backend.read(moments.cross());
    const MatrixView<const T> gram_view(gram.data(), 20, 20);
    const MatrixView<const T> cross_view(cross.data(), 20, 20);
    const MomentsOf<TestType> saved(backend, gram_view, cross_view, moments.tokens());
    CHECK(saved.tokens() == 60);
    CHECK(saved.has_reference());
    CHECK(backend.read(saved.gram()) == gram);
    CHECK(backend.read(saved.cross()) == cross);
    CHECK(quantize<TestType>(SolverOf<GPTAQ, TestType>(saved), layer.w, IntegerGrid{}).codes ==
          quantize<TestType>(SolverOf<GPTAQ, TestType>(moments), layer.w, IntegerGrid{}).codes);

    SECTION("and take more tokens") {
        MomentsOf<TestType> more(backend, gram_view, cross_view, 60);
        const auto x = upload<TestType>(layer.x);
        const auto x_fp = upload<TestType>(layer.x_fp);
        more.accumulate(x.view(), x_fp.view());
        auto expected = reference::moments(layer.x, layer.x_fp);
        for (auto* sums : {&expected.h, &expected.d})
            for (double& v : sums->data) v *= 2;
        check_sums<TestType>(more, expected);
        CHECK(more.tokens() == 120);
    }
    SECTION("without reference inputs") {
        const MomentsOf<TestType> plain(backend, gram_view, {}, 60);
        CHECK_FALSE(plain.has_reference());
    }
    SECTION("of the right shape") {
        CHECK(
            contains(message_of([&] { MomentsOf<TestType>(backend, gram_view.block(0, 0, 20, 19), {}, 1); }),
                     "gram has columns: 19"));
        CHECK(contains(
            message_of([&] { MomentsOf<TestType>(backend, gram_view, cross_view.block(0, 0, 19, 20), 1); }),
            "cross has rows: 19"));
        CHECK(contains(message_of([&] { MomentsOf<TestType>(backend, gram_view, {}, -1); }),
                       "tokens is -1, expected 0 to 2^53"));
    }
}

TEMPLATE_TEST_CASE("Misuse of moments says what to do", "[moments]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const auto x = upload<TestType>(reference::Matrix(6, 8));
    const auto narrow = upload<TestType>(reference::Matrix(6, 7));
    const auto shorter = upload<TestType>(reference::Matrix(5, 8));
    MomentsOf<TestType> moments(backend, 8);

    CHECK(message_of([&] { moments.accumulate(narrow.view()); }) ==
          "residua: Moments::accumulate: x.cols is 7, expected 8 (in_features)");
    CHECK(message_of([&] { moments.accumulate(x.view(), narrow.view()); }) ==
          "residua: Moments::accumulate: x_fp.cols is 7, expected 8 (in_features)");
    CHECK(message_of([&] { moments.accumulate(x.view(), shorter.view()); }) ==
          "residua: Moments::accumulate: x_fp has rows: 5, expected 6 (tokens of x)");
    CHECK(contains(message_of([&] { moments.accumulate(MatrixView<const T>(x.view().data, 2, 8, 7)); }),
                   "x.stride is 7"));
    CHECK(contains(message_of([&] { moments.accumulate(MatrixView<const T>(nullptr, 2, 8)); }),
                   "x.data is null"));
    CHECK(contains(message_of([&] { moments.accumulate(x.view(), std::vector<float>(5, 1.0f)); }),
                   "weights has elements: 5, expected 6 (tokens of x)"));
    for (const float bad :
         {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> weights(6, 1.0f);
        weights[3] = bad;
        CHECK(contains(message_of([&] { moments.accumulate(x.view(), weights); }),
                       "expected finite values of at least 0"));
    }
    CHECK(contains(message_of([&] { MomentsOf<TestType>(backend, 0); }),
                   "in_features is 0, expected at least 1"));
    CHECK(contains(message_of([&] { MomentsOf<TestType>(backend, -3); }), "in_features is -3"));
    CHECK(moments.tokens() == 0);  // nothing of all this was added

    SECTION("batches with and without x_fp do not mix") {
        moments.accumulate(x.view());
        CHECK(contains(message_of([&] { moments.accumulate(x.view(), x.view()); }),
                       "x_fp is given, expected absent"));
        MomentsOf<TestType> with(backend, 8);
        with.accumulate(x.view(), x.view());
        CHECK(contains(message_of([&] { with.accumulate(x.view()); }), "x_fp is absent"));
        CHECK(contains(message_of([&] { with.merge(moments); }),
                       "reference inputs are absent, expected given, as in this"));
        CHECK(contains(message_of([&] { moments.merge(with); }),
                       "reference inputs are given, expected absent, as in this"));
        CHECK(moments.tokens() == 6);
        CHECK(with.tokens() == 6);
        MomentsOf<TestType> other(backend, 9);
        CHECK(contains(message_of([&] { moments.merge(other); }), "in_features is 9"));
    }
    SECTION("sizes beyond all memory") {
        const Index huge = Index(1) << 62;  // whose square is 0 in 64 bits
        CHECK(contains(message_of([&] { MomentsOf<TestType>(backend, huge); }),
                       "in_features is 4611686018427387904, expected"));
        CHECK(contains(message_of([&] { moments.accumulate(MatrixView<const T>(x.view().data, huge, 8)); }),
                       "x.rows times stride is 4611686018427387904 * 8"));
    }
    SECTION("saved moments need elements") {
        const MatrixView<const T> nothing(nullptr, 8, 8);
        CHECK(
            contains(message_of([&] { MomentsOf<TestType>(backend, nothing, {}, 1); }), "gram.data is null"));
        const std::vector<T> values(64, T(1));
        const MatrixView<const T> narrow_rows(values.data(), 8, 8, 7);
        CHECK(contains(message_of([&] { MomentsOf<TestType>(backend, narrow_rows, {}, 1); }),
                       "gram.stride is 7"));
    }
    SECTION("moments without memory") {
        MomentsOf<TestType> used(backend, 8), taken(backend, 8);
        used.accumulate(x.view());
        taken.accumulate(x.view());
        moments.accumulate(x.view());
        const FactorizationKey key{SolverOptions{}};
        (void)used.consume(key);
        MomentsOf<TestType> owner = std::move(taken);
        CHECK(owner.tokens() == 6);
        CHECK(taken.tokens() == 0);
        const auto refused = [&](MomentsOf<TestType>& without, const std::string& why) {
            CAPTURE(why);
            CHECK(contains(message_of([&] { without.accumulate(x.view()); }), why));
            CHECK(contains(message_of([&] { without.merge(moments); }), "this was " + why));
            CHECK(contains(message_of([&] { moments.merge(without); }), "other was " + why));
            CHECK(contains(message_of([&] { (void)without.factorization(key); }), why));
            CHECK(contains(message_of([&] { (void)without.consume(key); }), why));
            CHECK(without.gram().rows == 0);
            without.forget_factorization();
        };
        refused(used, "used up by a solver");
        refused(taken, "moved from");
        CHECK(moments.tokens() == 6);
        taken = std::move(owner);
        CHECK(taken.gram().rows == 8);
    }
    SECTION("a solver that was moved from") {
        SolverOf<GPTQ, TestType> solver(backend, 8);
        solver.accumulate(x.view());
        const SolverOf<GPTQ, TestType> other = std::move(solver);
        CHECK(contains(message_of([&] { (void)solver.quantize(x.view(), IntegerGrid{}); }),
                       "accumulated tokens: 0, expected at least 1"));
        CHECK(contains(message_of([&] { solver.accumulate(x.view()); }), "moved from"));
    }
    SECTION("a batch without tokens is none") {
        moments.accumulate(x.view().row_range(0, 0));
        moments.accumulate(MatrixView<const T>(nullptr, 0, 8));
        CHECK(moments.tokens() == 0);
    }
}
