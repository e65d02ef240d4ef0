// A third party's backend in plain loops: six operations on top of HostBackend, no Eigen anywhere. It solves
// a small layer with every method; the exit status says whether the results are what they must be.

#include <cmath>
#include <cstdio>
#include <vector>

#include "residua/backends/host.hpp"
#include "residua/solver/solver.hpp"

namespace {

using residua::Index;
using residua::MatrixView;

class ToyBackend : public residua::HostBackend {
  public:
    /// C = beta C + alpha op(A) X
    template <residua::Real T>
    void multiply(T alpha, residua::Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        const bool transposed = transpose == residua::Transpose::Yes;
        for (Index i = 0; i < c.rows; ++i) {
            for (Index j = 0; j < c.cols; ++j) {
                T sum = 0;
                for (Index k = 0; k < x.rows; ++k) sum += (transposed ? a(k, i) : a(i, k)) * x(k, j);
                c(i, j) = beta == T(0) ? alpha * sum : beta * c(i, j) + alpha * sum;
            }
        }
    }

    /// A = R R', from the last column to the first
    template <residua::Real T>
    bool cholesky_upper(MatrixView<T> a) {
        for (Index k = a.rows; k-- > 0;) {
            if (!(a(k, k) > T(0))) return false;
            a(k, k) = std::sqrt(a(k, k));
            for (Index i = 0; i < k; ++i) a(i, k) /= a(k, k);
            for (Index i = 0; i < k; ++i)
                for (Index j = i; j < k; ++j) a(i, j) -= a(i, k) * a(j, k);
        }
        return true;
    }

    template <residua::Real T>
    void solve_upper(MatrixView<const T> r, MatrixView<T> x) {
        for (Index c = 0; c < x.cols; ++c) {
            for (Index i = r.rows; i-- > 0;) {
                for (Index k = i + 1; k < r.rows; ++k) x(i, c) -= r(i, k) * x(k, c);
                x(i, c) /= r(i, i);
            }
        }
    }

    template <residua::Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        for (Index c = 0; c < x.cols; ++c) {
            for (Index i = 0; i < r.rows; ++i) {
                for (Index k = 0; k < i; ++k) x(i, c) -= r(k, i) * x(k, c);
                x(i, c) /= r(i, i);
            }
        }
    }

    template <residua::Element In, residua::Real T>
    void accumulate_gram(MatrixView<const In> x, std::span<const float> weights, MatrixView<T> h) {
        outer_products(x, weights, h, [&](Index t, Index i) { return T(x(t, i)); });
    }

    template <residua::Element In, residua::Real T>
    void accumulate_cross(MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                          std::span<const float> weights, MatrixView<T> d) {
        outer_products(x, weights, d, [&](Index t, Index i) { return T(y_fp(t, i)) - T(y(t, i)); });
    }

  private:
    template <class In, class T, class Left>
    static void outer_products(MatrixView<const In> x, std::span<const float> weights, MatrixView<T> sum,
                               Left left) {
        for (Index t = 0; t < x.rows; ++t) {
            const T weight = weights.empty() ? T(1) : T(weights[static_cast<std::size_t>(t)]);
            if (weight == T(0)) continue;
            for (Index i = 0; i < sum.rows; ++i)
                for (Index j = 0; j < sum.cols; ++j) sum(i, j) += weight * left(t, i) * T(x(t, j));
        }
    }
};

static_assert(residua::Backend<ToyBackend, double> && residua::Backend<ToyBackend, float>);

constexpr Index out_features = 12;
constexpr Index in_features = 40;
constexpr Index tokens = 120;
int failures = 0;

void check(bool holds, const char* what) {
    if (holds) return;
    std::printf("FAILED: %s\n", what);
    ++failures;
}

/// Numbers in [-1, 1) that look random.
std::vector<double> numbers(Index count, unsigned seed) {
    std::vector<double> values;
    for (Index i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        values.push_back(double(seed >> 8) / double(1 << 23) - 1);
    }
    return values;
}

struct Layer {
    std::vector<double> w, x, x_fp;
};

Layer make_layer() {
    const std::vector<double> hidden = numbers(tokens * 8, 1);
    const std::vector<double> mix = numbers(8 * in_features, 2);
    const std::vector<double> deviation = numbers(tokens * in_features, 3);
    Layer layer{numbers(out_features * in_features, 4), numbers(tokens * in_features, 5), {}};
    for (Index t = 0; t < tokens; ++t) {
        for (Index j = 0; j < in_features; ++j) {
            double& x = layer.x[std::size_t(t * in_features + j)];
            x *= 0.3;
            for (Index k = 0; k < 8; ++k)
                x += hidden[std::size_t(t * 8 + k)] * mix[std::size_t(k * in_features + j)];
            layer.x_fp.push_back(1.1 * x + 0.05 * deviation[std::size_t(t * in_features + j)]);
        }
    }
    return layer;
}

/// Solves, and compares the report with plain sums.
template <class Method>
void check_method(ToyBackend& backend, const Layer& layer, Method method) {
    residua::SolverOptions options;
    options.group_size = 16;
    options.block_size = 7;
    options.report_objective = true;
    residua::Solver<Method, double, ToyBackend> solver(backend, in_features, options, method);
    solver.accumulate(MatrixView<const double>(layer.x.data(), tokens, in_features),
                      MatrixView<const double>(layer.x_fp.data(), tokens, in_features));
    const auto result = solver.quantize(MatrixView<const double>(layer.w.data(), out_features, in_features),
                                        residua::IntegerGrid{.bits = 4});
    check(bool(result), Method::name);
    if (!result) return;

    // tr(E H E') by hand is what the report says
    const auto q = result.dequantize(backend);
    double sum = 0;
    for (Index t = 0; t < tokens; ++t) {
        for (Index r = 0; r < out_features; ++r) {
            double y = 0;
            for (Index j = 0; j < in_features; ++j)
                y += (layer.w[std::size_t(r * in_features + j)] - q(r, j)) *
                     layer.x[std::size_t(t * in_features + j)];
            sum += y * y;
        }
    }
    const residua::Report& report = result.report;
    check(std::abs(report.objective->symmetric / sum - 1) < 1e-10, "the reported objective is the plain sum");
    const bool better = Method::residuals == residua::Residuals::None
                            ? report.objective->symmetric < 0.5 * report.round_to_nearest->symmetric
                            : *report.objective->asymmetric < *report.round_to_nearest->asymmetric;
    check(better, "better than plain rounding");
    std::printf("%-15s %10.4f (plain rounding %.4f)\n", Method::name, report.objective->symmetric,
                report.round_to_nearest->symmetric);
}

}  // namespace

int main() {
    ToyBackend backend;
    const Layer layer = make_layer();
    check_method(backend, layer, residua::GPTQ{});
    check_method(backend, layer, residua::GPTAQ{});
    check_method(backend, layer, residua::ResidualComp{});
    check_method(backend, layer, residua::GPTQResidualComp{.beta = 0.1});
    check_method(backend, layer, residua::QEP{});
    check_method(backend, layer, residua::Qronos{});
    return failures == 0 ? 0 : 1;
}
