// The residual stream: what a solve that knows it aims at, and that it changes nothing where it does not deviate.

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Sums over some hundred tokens in the element type, against double.
template <class Tag>
constexpr double stream_sum_within = std::is_same_v<typename Tag::Scalar, double> ? 1e-12 : 1e-4;

Layer stream_layer() { return random_layer({.out = 13, .in = 60, .tokens = 200, .dead = {4}, .seed = 31}); }

SolverOptions stream_options() {
    SolverOptions options;
    options.group_size = GENERATE(16, -1);
    options.static_groups = GENERATE(false, true);
    options.refinement.rounds = GENERATE(0, 1);
    return options;
}

/// check(method, its inputs without the stream, and with it)
template <class Check>
void for_methods(Check check) {
    check(GPTQ{}, Inputs::Quantized, Inputs::StreamAlone);
    check(GPTAQ{}, Inputs::WithReference, Inputs::WithStream);
    check(QEP{}, Inputs::WithReference, Inputs::WithStream);
    check(Qronos{}, Inputs::WithReference, Inputs::WithStream);
}

/// sum_t |h_fp_t + W x_fp_t - h_t - Q x_t|^2, what the model behind the layer sees of Q.
double stream_error(const Layer& layer, const reference::Matrix& q, const reference::Matrix& x_fp) {
    double total = 0;
    for (Index t = 0; t < layer.tokens; ++t) {
        for (Index r = 0; r < layer.m; ++r) {
            double error = layer.h_fp(t, r) - layer.h(t, r);
            for (Index j = 0; j < layer.n; ++j) error += layer.w(r, j) * x_fp(t, j) - q(r, j) * layer.x(t, j);
            total += error * error;
        }
    }
    return total;
}

}  // namespace

TEMPLATE_TEST_CASE("A residual stream without deviation changes no code", "[solver][stream]",
                   RESIDUA_TEST_BACKENDS) {
    Layer layer = stream_layer();
    const SolverOptions options = stream_options();
    const IntegerGrid grid{.bits = 3};
    for_methods([&](const auto& method, Inputs without, Inputs with) {
        using Method = std::decay_t<decltype(method)>;
        CAPTURE(Method::name, options.group_size, options.static_groups, options.refinement.rounds);
        const auto plain = codes_of<Method, TestType>(layer, options, grid, method, without);

        SolverOptions ignoring = options;
        ignoring.stream_alpha = 0;
        CHECK(codes_of<Method, TestType>(layer, ignoring, grid, method, with) == plain);
        CHECK(codes_of<Method, TestType>(layer, options, grid, method, with) != plain);

        Layer still = layer;
        still.h_fp = still.h;
        CHECK(codes_of<Method, TestType>(still, options, grid, method, with) == plain);
    });
}

TEMPLATE_TEST_CASE("With alpha = alpha_h = 1 the target is the least-squares solution behind the layer",
                   "[solver][stream]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    const Index out = GENERATE(13, 70);  // by D and a solve, by M
    const Layer layer = random_layer({.out = out, .in = 60, .tokens = 200, .dead = {}, .seed = 32});
    SolverOptions options;
    options.damping.initial = 0;
    options.ordering = Ordering::Activation;
    const bool is_referenced = GENERATE(true, false);
    const auto moments =
        moments_of<TestType>(layer, is_referenced ? Inputs::WithStream : Inputs::StreamAlone);
    const auto factorization = moments.factorization(FactorizationKey(options));
    auto& backend = TestType::get();
    detail::ResidualSums<T, typename TestType::Backend> sums(*factorization, 1.0);
    if (is_referenced) sums = {*factorization, 1.0, layer.m};
    const auto w = upload<TestType>(layer.w);
    auto columns = backend.template workspace<T>(layer.n, layer.m);
    auto target = backend.template workspace<T>(layer.n, layer.m);
    auto flag = backend.template allocate<Code>(1, 1);
    backend.set_zero(flag.view());
    backend.load_columns(read_only(w.view()), factorization->order(), columns.view(), nullptr);
    sums.sum(T(is_referenced ? 1 : 0), read_only(columns.view()), 0, flag.view().data, target.view());
    sums.complete(read_only(columns.view()), target.view());
    CHECK(backend.read(flag.view())[0] == 0);

    auto rows = backend.template allocate<T>(layer.m, layer.n);
    backend.store_columns(read_only(target.view()), factorization->order(), rows.view());
    const reference::Matrix best = download<TestType>(rows.view());
    const reference::Matrix& x_fp = is_referenced ? layer.x_fp : layer.x;
    // The gradient sum_t (h_fp + W x_fp - h - W* x) x' is zero, next to that at W.
    const auto gradient = [&](const reference::Matrix& q) {
        double square = 0;
        for (Index r = 0; r < layer.m; ++r) {
            std::vector<double> sum(std::size_t(layer.n), 0.0);
            for (Index t = 0; t < layer.tokens; ++t) {
                double error = layer.h_fp(t, r) - layer.h(t, r);
                for (Index j = 0; j < layer.n; ++j)
                    error += layer.w(r, j) * x_fp(t, j) - q(r, j) * layer.x(t, j);
                for (Index j = 0; j < layer.n; ++j) sum[std::size_t(j)] += error * layer.x(t, j);
            }
            for (const double g : sum) square += g * g;
        }
        return std::sqrt(square);
    };
    CHECK(gradient(best) <= stream_sum_within<TestType> * gradient(layer.w));
    CHECK(stream_error(layer, best, x_fp) < 0.8 * stream_error(layer, layer.w, x_fp));
}

TEMPLATE_TEST_CASE("The reported objective is that of the residual stream behind the layer",
                   "[solver][stream]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = stream_layer();
    for_methods([&](const auto& method, Inputs, Inputs with) {
        using Method = std::decay_t<decltype(method)>;
        INFO(Method::name);
        const Solved solved =
            solve<Method, TestType>(layer, reporting(), IntegerGrid{.bits = 3}, method, with);
        const reference::Matrix& x_fp = with == Inputs::StreamAlone ? layer.x : layer.x_fp;
        // what does not depend on Q is what is left of it at Q = W
        const double deviation = stream_error(layer, layer.w, x_fp);
        const double expected = stream_error(layer, solved.dequantized, x_fp) - deviation;
        REQUIRE(solved.report.objective->asymmetric);
        CHECK(std::abs(*solved.report.objective->asymmetric - expected) <=
              stream_sum_within<TestType> * deviation);
        CHECK(solved.report.asymmetric_target);
        CHECK(solved.report.achieved() == solved.report.objective->asymmetric);
    });
}

TEMPLATE_TEST_CASE("Misuse of the residual stream says what to do", "[solver][stream]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = stream_layer();
    auto& backend = TestType::get();
    const auto x = upload<TestType>(layer.x);
    const auto h = upload<TestType>(layer.h);
    const auto shorter = h.view().row_range(0, 7);
    const auto narrow = h.view().block(0, 0, layer.tokens, 5);
    MomentsOf<TestType> moments(backend, layer.n);
    CHECK(message_of([&] {
              moments.accumulate(x.view(), x.view(), ResidualStream{shorter, h.view()});
          }) == "residua: Moments::accumulate: h has rows: 7, expected 200 (tokens of x)");
    CHECK(message_of([&] {
              moments.accumulate(x.view(), ResidualStream{h.view(), narrow});
          }) == "residua: Moments::accumulate: h_fp.cols is 5, expected 13 (out_features)");
    CHECK(moments.tokens() == 0);
    const ResidualStream stream{h.view(), h.view()};
    moments.accumulate(x.view(), x.view(), stream);
    CHECK(contains(message_of([&] { moments.accumulate(x.view(), x.view()); }),
                   "the residual stream is absent, expected given, as in the batches before"));
    CHECK(contains(message_of([&] {
                       moments.accumulate(x.view(), x.view(), ResidualStream{narrow, narrow});
                   }),
                   "h.cols is 5, expected 13 (out_features)"));
    MomentsOf<TestType> plain(backend, layer.n);
    plain.accumulate(x.view(), x.view());
    CHECK(contains(message_of([&] { plain.accumulate(x.view(), x.view(), stream); }),
                   "the residual stream is given, expected absent, as in the batches before"));
    CHECK(contains(message_of([&] { plain.merge(moments); }),
                   "other's residual stream is given, expected absent, as in this"));

    const auto w = upload<TestType>(layer.w);
    const auto rows = w.view().row_range(0, 4);
    CHECK(message_of([&] { (void)SolverOf<QEP, TestType>(moments).quantize(rows, IntegerGrid{}); }) ==
          "residua: Solver::quantize: weights has rows: 4, expected 13 (columns of the residual stream)");
    auto quantized = SolverOf<QEP, TestType>(plain).quantize(rows, IntegerGrid{});
    CHECK(contains(message_of([&] { (void)objective(moments, read_only(rows), quantized); }),
                   "objectives: weights has rows: 4, expected 13"));
    CHECK(contains(message_of([&] { SolverOf<QEP, TestType>(moments, {.stream_alpha = 2}); }),
                   "stream_alpha is 2, expected in [0, 1]"));
}

TEMPLATE_TEST_CASE("NaN and infinity in the residual stream", "[solver][stream]", RESIDUA_TEST_BACKENDS) {
    Layer layer = stream_layer();
    layer.h_fp(7, 3) =
        GENERATE(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN());
    for_methods([&](const auto& method, Inputs, Inputs with) {
        using Method = std::decay_t<decltype(method)>;
        CHECK(solve<Method, TestType>(layer, {}, IntegerGrid{}, method, with).status ==
              Status::NonFiniteMoments);
    });
}
