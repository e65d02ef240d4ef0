// H and D on the GPU against sums in double precision.

#include "catch.hpp"
#include "cuda/backends.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace {

using namespace residua;
using namespace residua::test;

template <class In>
struct Tokens {
    Index tokens, n;
    std::vector<In> x, x_fp;

    MatrixView<const In> view(const std::vector<In>& values) const { return {values.data(), tokens, n}; }
};

/// x_fp - x is `deviation` of x.
template <class In>
Tokens<In> random_tokens(Index tokens, Index n, double deviation) {
    Random random(7);
    Tokens<In> result{tokens, n, {}, {}};
    for (Index t = 0; t < tokens; ++t) {
        const double shared = random.normal();
        for (Index j = 0; j < n; ++j) {
            const double value = shared + random.normal();
            const auto convert = [](double v) { return In(static_cast<float>(v)); };
            result.x.push_back(convert(value));
            result.x_fp.push_back(convert(value + deviation * (random.normal() + 0.5 * shared)));
        }
    }
    return result;
}

struct Sums {
    std::vector<double> h, d;
};

template <class In>
Sums sums_of(const Tokens<In>& tokens, const std::vector<float>& weights) {
    const auto n = static_cast<std::size_t>(tokens.n);
    Sums sums{std::vector<double>(n * n), std::vector<double>(n * n)};
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens.tokens); ++t) {
        const double w = weights.empty() ? 1.0 : double(weights[t]);
        if (w == 0) continue;
        for (std::size_t i = 0; i < n; ++i) {
            const double xi = w * double(float(tokens.x[t * n + i]));
            const double di = w * double(float(tokens.x_fp[t * n + i])) - xi;
            for (std::size_t j = 0; j < n; ++j) {
                const double xj = double(float(tokens.x[t * n + j]));
                sums.h[i * n + j] += xi * xj;
                sums.d[i * n + j] += di * xj;
            }
        }
    }
    return sums;
}

double relative_error(const std::vector<float>& values, const std::vector<double>& truth) {
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
        error += (double(values[i]) - truth[i]) * (double(values[i]) - truth[i]);
        size += truth[i] * truth[i];
    }
    return std::sqrt(error / size);
}

template <class In>
void check_moments(double deviation, const std::vector<float>& weights, bool on_device) {
    CudaBackend& gpu = CudaFloat::get();
    Tokens<In> tokens = random_tokens<In>(700, 203, deviation);
    const Sums truth = sums_of(tokens, weights);
    if (!weights.empty()) tokens.x[0] = In(std::numeric_limits<float>::quiet_NaN());  // of weight 0
    auto x = gpu.allocate<In>(tokens.tokens, tokens.n);
    auto x_fp = gpu.allocate<In>(tokens.tokens, tokens.n);
    gpu.write(tokens.x, x.view());
    gpu.write(tokens.x_fp, x_fp.view());
    Moments<float, CudaBackend> moments(gpu, tokens.n);
    if (on_device) {
        moments.accumulate(std::as_const(x).view(), std::as_const(x_fp).view(), weights);
    } else {
        moments.accumulate(tokens.view(tokens.x), tokens.view(tokens.x_fp), weights);
    }
    const double h = relative_error(gpu.read(moments.gram()), truth.h);
    const double d = relative_error(gpu.read(moments.cross()), truth.d);
    INFO("deviation " << deviation << ", weighted " << !weights.empty() << ": H " << h << ", D " << d);
    CHECK(h <= 1e-5);
    CHECK(d <= 1e-3);
}

}  // namespace

TEMPLATE_TEST_CASE("Moments are those of double precision", "[cuda][accumulation]", bfloat16, float16,
                   float) {
    for (const double deviation : {0.01, 0.1, 1.0}) {
        for (const bool on_device : {false, true}) {
            check_moments<TestType>(deviation, {}, on_device);
            std::vector<float> mask(700, 1.0f);
            for (std::size_t t = 0; t < mask.size(); t += 3) mask[t] = 0;
            check_moments<TestType>(deviation, mask, on_device);
            for (std::size_t t = 1; t < mask.size(); t += 3) mask[t] = 0.37f;
            check_moments<TestType>(deviation, mask, on_device);
        }
    }
}
