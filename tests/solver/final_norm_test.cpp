// The gains of a model's last norm against the quadratic that they minimize, by explicit inverses.

#include "residua/solver/final_norm.hpp"
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// A solve with a matrix whose condition number is a few thousand, next to gains of about 1.
template <class Tag>
constexpr double gain_within = std::is_same_v<typename Tag::Scalar, double> ? 1e-10 : 2e-4;

/// w is the output layer, whose mean is far from zero; x and x_fp are the norm's outputs.
Layer head_layer() {
    Layer layer = random_layer({.out = 90, .in = 21, .tokens = 150, .dead = {6}, .seed = 41});
    for (Index r = 0; r < layer.m; ++r)
        for (Index j = 0; j < layer.n; ++j) layer.w(r, j) += to_float(0.03 * double(j));
    return layer;
}

reference::Matrix centred(reference::Matrix w) {
    for (Index j = 0; j < w.cols; ++j) {
        double sum = 0;
        for (Index r = 0; r < w.rows; ++r) sum += w(r, j);
        for (Index r = 0; r < w.rows; ++r) w(r, j) -= sum / double(w.rows);
    }
    return w;
}

/// sum_t |L (x_fp_t - g o x_t)|^2 + ridge |g - 1|^2, L = w
double loss(const Layer& layer, const reference::Matrix& w, const std::vector<double>& gains, double ridge) {
    double total = 0;
    for (Index t = 0; t < layer.tokens; ++t) {
        for (Index r = 0; r < w.rows; ++r) {
            double error = 0;
            for (Index j = 0; j < layer.n; ++j)
                error += w(r, j) * (layer.x_fp(t, j) - gains[std::size_t(j)] * layer.x(t, j));
            total += error * error;
        }
    }
    for (const double g : gains) total += ridge * (g - 1) * (g - 1);
    return total;
}

template <class Tag>
NormGains<typename Tag::Scalar> gains_of(const Layer& layer, Inputs inputs = Inputs::WithReference,
                                         const Damping& damping = {}) {
    const auto moments = moments_of<Tag>(layer, inputs);
    const auto head = upload<Tag>(layer.w);
    return final_norm_gains(moments, head.view(), damping);
}

}  // namespace

TEMPLATE_TEST_CASE("Gains of the last norm minimize the damped error of the logits", "[final_norm]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = head_layer();
    const double lambda = GENERATE(0.01, 0.3);
    const auto gains = gains_of<TestType>(layer, Inputs::WithReference, {.initial = lambda});
    REQUIRE(gains);
    CHECK(gains.damping == lambda);

    const reference::Matrix w = centred(layer.w);
    const Index n = layer.n;
    reference::Matrix a(n, n);
    reference::Matrix right(n, 1);
    for (Index t = 0; t < layer.tokens; ++t) {
        for (Index r = 0; r < w.rows; ++r) {
            double deviation = 0;
            for (Index j = 0; j < n; ++j) deviation += w(r, j) * (layer.x_fp(t, j) - layer.x(t, j));
            for (Index i = 0; i < n; ++i) {
                const double slope = w(r, i) * layer.x(t, i);
                right(i, 0) += slope * deviation;
                for (Index j = 0; j < n; ++j) a(i, j) += slope * w(r, j) * layer.x(t, j);
            }
        }
    }
    double ridge = 0;
    for (Index j = 0; j < n; ++j) ridge += lambda * a(j, j) / double(n);
    for (Index j = 0; j < n; ++j) a(j, j) += ridge;
    const reference::Matrix expected = reference::product(reference::inverse(a), right);
    std::vector<double> found;
    for (Index j = 0; j < n; ++j) {
        found.push_back(double(gains.values[std::size_t(j)]));
        CHECK(std::abs(found.back() - 1 - expected(j, 0)) <= gain_within<TestType>);
    }
    CHECK(found[6] == 1);  // an input that is always zero

    // and there is no better one nearby
    const double least = loss(layer, w, found, ridge);
    CHECK(least < loss(layer, w, std::vector<double>(std::size_t(n), 1.0), ridge));
    for (std::size_t j = 0; j < found.size(); ++j) {
        for (const double step : {-0.01, 0.01}) {
            std::vector<double> other = found;
            other[j] += step;
            CHECK(loss(layer, w, other, ridge) > least);
        }
    }
}

TEMPLATE_TEST_CASE("Without deviation all gains of the last norm are 1", "[final_norm]",
                   RESIDUA_TEST_BACKENDS) {
    Layer layer = head_layer();
    layer.x_fp = layer.x;
    const auto gains = gains_of<TestType>(layer);
    REQUIRE(gains);
    for (const auto g : gains.values) CHECK(g == 1);
}

TEMPLATE_TEST_CASE("A shift of all logits alike is no error of the last norm", "[final_norm]",
                   RESIDUA_TEST_BACKENDS) {
    const Layer layer = head_layer();
    Layer shifted = layer;
    for (Index r = 0; r < layer.m; ++r)
        for (Index j = 0; j < layer.n; ++j) shifted.w(r, j) += j % 2 == 0 ? 0.25 : -0.5;
    const auto gains = gains_of<TestType>(layer);
    const auto same = gains_of<TestType>(shifted);
    for (std::size_t j = 0; j < gains.values.size(); ++j)
        CHECK(std::abs(double(gains.values[j] - same.values[j])) <= gain_within<TestType>);
}

TEMPLATE_TEST_CASE("Gains of the last norm refuse what does not fit, and report what is not finite",
                   "[final_norm]", RESIDUA_TEST_BACKENDS) {
    const Layer layer = head_layer();
    CHECK(contains(message_of([&] { (void)gains_of<TestType>(layer, Inputs::Quantized); }),
                   "final_norm_gains: the moments' reference inputs are absent"));
    const auto moments = moments_of<TestType>(layer);
    const auto head = upload<TestType>(layer.w);
    CHECK(contains(message_of([&] { (void)final_norm_gains(moments, head.view().block(0, 0, 90, 20)); }),
                   "final_norm_gains: head.cols is 20, expected 21 (in_features)"));
    const MomentsOf<TestType> empty(TestType::get(), layer.n);
    CHECK(contains(message_of([&] { (void)final_norm_gains(empty, head.view()); }),
                   "final_norm_gains: accumulated tokens: 0"));

    Layer broken = layer;
    broken.w(5, 3) = std::numeric_limits<double>::infinity();
    CHECK(gains_of<TestType>(broken).status == Status::NonFiniteWeights);
    broken = layer;
    broken.x_fp(5, 3) = std::numeric_limits<double>::quiet_NaN();
    CHECK(gains_of<TestType>(broken).status == Status::NonFiniteMoments);
}
