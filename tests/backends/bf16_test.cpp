// Moments of bfloat16 tokens by oneDNN against double, where this build and this machine have them.

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

#ifdef RESIDUA_ONEDNN

namespace {

std::vector<bfloat16> random_tokens(Index count, Index features, std::uint64_t seed) {
    Random random(seed);
    std::vector<bfloat16> values;
    for (Index i = 0; i < count * features; ++i) values.emplace_back(to_float(random.normal()));
    return values;
}

}  // namespace

TEST_CASE("oneDNN multiplies bfloat16 matrices and sums in float", "[backend][bf16]") {
    // Products of bfloat16 numbers are exact in float; 300 of them are summed, in any order.
    const double tolerance = 300 * double(std::numeric_limits<float>::epsilon()) * 300;
    const Index terms = 300, rows = 40, cols = 70, stride = 90;
    const auto a = random_tokens(terms, stride, 1);
    const auto x = random_tokens(terms, stride, 2);
    Matrix<float> y(rows, cols, stride);
    detail::multiply_bf16(MatrixView<const bfloat16>(a.data() + 3, terms, rows, stride),
                          MatrixView<const bfloat16>(x.data() + 5, terms, cols, stride), y.view());
    double worst = 0;
    for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < cols; ++j) {
            double sum = 0;
            for (Index k = 0; k < terms; ++k)
                sum +=
                    double(a[std::size_t(k * stride + 3 + i)]) * double(x[std::size_t(k * stride + 5 + j)]);
            worst = std::max(worst, std::abs(sum - double(y(i, j))));
        }
    }
    CHECK(worst <= tolerance);
}

TEST_CASE("Moments of bfloat16 tokens are those of double up to the rounding of tokens", "[backend][bf16]") {
    const Index tokens = 700, features = 600;  // several tiles
    const auto x = random_tokens(tokens, features, 3);
    const auto x_fp = random_tokens(tokens, features, 4);
    std::vector<float> weights;
    for (Index t = 0; t < tokens; ++t) weights.push_back(t % 5 == 0 ? 0.0f : t % 2 == 0 ? 1.0f : 0.3f);
    EigenBackend backend;
    const MatrixView<const bfloat16> view(x.data(), tokens, features), view_fp(x_fp.data(), tokens, features);
    const bool weighted = GENERATE(false, true);
    Moments<float, EigenBackend> moments(backend, features);
    moments.accumulate(view, view_fp, weighted ? std::span<const float>(weights) : std::span<const float>());
    const auto gram = moments.gram(), cross = moments.cross();
    // A factor that is rounded to bfloat16 is off by 2^-9 of itself at most; both are where a weight scales them, the
    // deviation in D always. Sums of absolute values are what that is relative to.
    const double rounding = 2 * std::ldexp(1.0, -9) + 1e-4;
    double worst = 0;
    for (Index i = 0; i < features; i += 7) {
        for (Index j = 0; j < features; ++j) {
            double h = 0, d = 0, h_size = 0, d_size = 0;
            for (Index t = 0; t < tokens; ++t) {
                const double w = weighted ? double(weights[std::size_t(t)]) : 1.0;
                const double xi = double(view(t, i)), xj = double(view(t, j)),
                             delta = double(view_fp(t, i)) - xi;
                h += w * xi * xj;
                d += w * delta * xj;
                h_size += w * std::abs(xi * xj);
                d_size += w * std::abs(delta * xj);
            }
            worst = std::max({worst, std::abs(double(gram(i, j)) - h) / h_size,
                              std::abs(double(cross(i, j)) - d) / d_size});
        }
    }
    INFO((detail::has_fast_bf16_products() ? "by oneDNN" : "in float: this CPU has no AVX512-BF16"));
    CHECK(worst <= (detail::has_fast_bf16_products() ? rounding : 1e-4));
}

#else

TEST_CASE("bfloat16 products", "[backend][bf16]") { WARN("skipped: built without RESIDUA_ONEDNN"); }

#endif
