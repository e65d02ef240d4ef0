#include "residua/transform/learned_rotation.hpp"

#include "catch.hpp"
#include "residua/backends/eigen.hpp"
#include "residua/transform/hadamard.hpp"
#include "support/random.hpp"

using namespace residua;
using residua::test::Random;

namespace {

Matrix<float> random_rows(Index rows, Index cols, std::uint64_t seed) {
    Random random(seed);
    Matrix<float> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = float(random.normal());
    return m;
}

/// The mean of x x' over rows.
Matrix<float> gram_of(const Matrix<float>& x) {
    Matrix<float> gram(x.cols(), x.cols());
    for (Index i = 0; i < x.cols(); ++i) {
        for (Index j = 0; j < x.cols(); ++j) {
            double sum = 0;
            for (Index t = 0; t < x.rows(); ++t) sum += double(x(t, i)) * double(x(t, j));
            gram(i, j) = float(sum / double(x.rows()));
        }
    }
    return gram;
}

Matrix<double> signed_hadamard(Index n, std::uint64_t seed) {
    const HadamardTransform transform(n, {.seed = seed});
    Matrix<double> matrix(n, n);
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) matrix(i, j) = transform.entry(i, j);
    }
    return matrix;
}

/// Layers of all kinds around one rotation of `n` features, in heads too. Inputs have outlier channels and directions.
struct RotatedLayers {
    static constexpr Index n = 12;
    static constexpr int norm = 8;
    static constexpr double weights[] = {0.7, 1.3, 0.4, 2};
    const IntegerGrid asymmetric = {.bits = 4};
    const IntegerGrid restricted = {.bits = 3, .symmetry = Symmetry::Restricted};
    const ActivationQuantizer per_token = {.bits = 4, .clip_ratio = 0.9};
    const ActivationQuantizer grouped = {.bits = 4, .group_size = 16, .symmetry = Symmetry::FullRange};

    Matrix<float> x = random_rows(50, n, 1);
    Matrix<float> heads = random_rows(40, 3 * n, 2);
    Matrix<float> reader = random_rows(9, 3 * n, 3);
    Matrix<float> writer = random_rows(2 * n, 20, 4);
    Matrix<float> gram;
    std::vector<double> squares;

    RotatedLayers() {
        for (Index t = 0; t < x.rows(); ++t) x(t, 3) *= 20;
        for (Index t = 0; t < heads.rows(); ++t) heads(t, 5) += heads(t, 7) * 8;
        gram = gram_of(heads);
        Random random(5);
        for (Index j = 0; j < writer.cols(); ++j) squares.push_back(random.uniform());
    }

    void add_to(RotationNoise<EigenBackend>& noise) const {
        noise.add_inputs(x.view(), per_token, weights[0]);
        noise.add_inputs(heads.view(), grouped, weights[1]);
        noise.add_readers(reader.view(), restricted, 8, gram.view(), weights[2]);
        noise.add_readers(reader.view(), asymmetric, -1, gram.view(), weights[2]);
        noise.add_writers(writer.view(), asymmetric, 16, squares, weights[3]);
        noise.add_writers(writer.view(), restricted, -1, squares, weights[3]);
    }

    /// The squared scale of a group over 12, by the definition.
    static double variance(const std::vector<double>& group, int bits, Symmetry symmetry, double clip) {
        double up = 0, down = 0;
        for (const double y : group) (y > 0 ? up : down) += std::pow(std::abs(y), norm);
        const double last = std::pow(2.0, bits) - 1;
        const double both = std::pow(up + down, 1.0 / norm);
        double scale = 2 * both / (symmetry == Symmetry::Restricted ? last - 1 : last);
        if (symmetry == Symmetry::None)
            scale = (std::pow(up, 1.0 / norm) + std::pow(down, 1.0 / norm)) / last;
        return clip * clip * scale * scale / 12;
    }

    /// Rows of m, every n neighbours rotated.
    static std::vector<std::vector<double>> rotated(const Matrix<float>& m, const Matrix<double>& r) {
        std::vector<std::vector<double>> rows;
        for (Index i = 0; i < m.rows(); ++i) {
            auto& row = rows.emplace_back(std::size_t(m.cols()), 0.0);
            for (Index j = 0; j < m.cols(); ++j) {
                for (Index k = 0; k < n; ++k)
                    row[std::size_t(j)] += double(m(i, j / n * n + k)) * r(k, j % n);
            }
        }
        return rows;
    }

    /// Calls f(values, columns of a group) for each group of a row.
    template <class F>
    static void each_group(const std::vector<double>& row, Index group, F f) {
        const Index all = Index(row.size());
        const Index size = group < 0 ? all : group;
        for (Index first = 0; first < all; first += size) {
            const Index last = std::min(all, first + size);
            f(std::vector<double>(row.begin() + first, row.begin() + last), first, last);
        }
    }

    double naive(const Matrix<double>& r) const {
        double sum = 0;
        const auto inputs = [&](const Matrix<float>& m, const ActivationQuantizer& q, double weight) {
            for (const auto& row : rotated(m, r))
                each_group(row, q.group_size, [&](const auto& group, Index, Index) {
                    sum += weight / double(m.rows()) * double(group.size()) *
                           variance(group, q.bits, q.symmetry, q.clip_ratio);
                });
        };
        inputs(x, per_token, weights[0]);
        inputs(heads, grouped, weights[1]);
        std::vector<double> diagonal;  // of R' H R
        for (Index j = 0; j < 3 * n; ++j) {
            double value = 0;
            const Index head = j / n * n;
            for (Index a = 0; a < n; ++a) {
                for (Index b = 0; b < n; ++b)
                    value += r(a, j % n) * double(gram(head + a, head + b)) * r(b, j % n);
            }
            diagonal.push_back(value);
        }
        const auto matrix = [&](const std::vector<std::vector<double>>& rows, const IntegerGrid& grid,
                                Index group_size, const std::vector<double>& importance, double weight) {
            for (const auto& row : rows)
                each_group(row, group_size, [&](const auto& group, Index first, Index last) {
                    double mass = 0;
                    for (Index j = first; j < last; ++j) mass += importance[std::size_t(j)];
                    sum += weight * mass * variance(group, grid.bits, grid.symmetry, 1);
                });
        };
        matrix(rotated(reader, r), restricted, 8, diagonal, weights[2]);
        matrix(rotated(reader, r), asymmetric, -1, diagonal, weights[2]);
        std::vector<std::vector<double>> outputs;  // R' W
        for (Index i = 0; i < writer.rows(); ++i) {
            auto& row = outputs.emplace_back(std::size_t(writer.cols()), 0.0);
            for (Index j = 0; j < writer.cols(); ++j) {
                for (Index k = 0; k < n; ++k)
                    row[std::size_t(j)] += r(k, i % n) * double(writer(i / n * n + k, j));
            }
        }
        matrix(outputs, asymmetric, 16, squares, weights[3]);
        matrix(outputs, restricted, -1, squares, weights[3]);
        return sum;
    }
};

}  // namespace

TEST_CASE("rotation noise is that of its definition", "[transform]") {
    constexpr double tolerance = 1e-6;  // moments are of floats: the trace differs where R' H R is added up
    EigenBackend backend;
    const RotatedLayers layers;
    RotationNoise noise(backend, RotatedLayers::n, RotatedLayers::norm);
    layers.add_to(noise);
    for (const std::uint64_t seed : {std::uint64_t(0), std::uint64_t(1)}) {
        const Matrix<double> r = signed_hadamard(RotatedLayers::n, seed);
        CHECK(noise.value(r.view()) == Approx(layers.naive(r)).epsilon(tolerance));
    }
}

TEST_CASE("the gradient of rotation noise is that of finite differences", "[transform]") {
    constexpr double step = 1e-5;
    constexpr double tolerance = 1e-7;  // of the largest derivative: step^2, and rounding errors over step
    constexpr Index n = RotatedLayers::n;
    EigenBackend backend;
    const RotatedLayers layers;
    RotationNoise noise(backend, n, RotatedLayers::norm);
    layers.add_to(noise);
    Matrix<double> r = signed_hadamard(n, 0);
    Matrix<double> gradient(n, n);
    CHECK(noise.value_and_gradient(r.view(), gradient.view()) == noise.value(r.view()));
    double largest = 0, worst = 0;
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
            const double before = r(i, j);
            r(i, j) = before + step;
            const double above = noise.value(r.view());
            r(i, j) = before - step;
            const double below = noise.value(r.view());
            r(i, j) = before;
            largest = std::max(largest, std::abs(gradient(i, j)));
            worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient(i, j)));
        }
    }
    INFO("off by " << worst << " of " << largest);
    CHECK(largest > 0);
    CHECK(worst < tolerance * largest);
}

TEST_CASE(
    "learned rotations are orthogonal, lower the noise with every step, and are the same by any threads",
    "[transform]") {
    constexpr double orthogonal = 1e-12;  // double, re-orthogonalized after each step
    constexpr Index n = RotatedLayers::n;
    const RotatedLayers layers;
    const Matrix<double> start = signed_hadamard(n, 0);
    const auto learn = [&](const Executor& executor, const RotationOptions& options) {
        EigenBackend backend(executor);
        RotationNoise noise(backend, n);
        layers.add_to(noise);
        return learn_rotation(noise, start.view(), options);
    };
    const RotationOptions all = {.steps = 60, .tolerance = 0};
    const LearnedRotation learned = learn(Executor(1), all);
    REQUIRE(learned.steps() > 20);
    for (Index k = 0; k < learned.steps(); ++k)
        CHECK(learned.noise[std::size_t(k) + 1] < learned.noise[std::size_t(k)]);
    CHECK(learned.noise.back() < 0.8 * learned.noise.front());
    CHECK(learned.evaluations > learned.steps());

    const Matrix<double>& r = learned.rotation;
    double error = 0;
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
            double dot = i == j ? -1 : 0;
            for (Index k = 0; k < n; ++k) dot += r(i, k) * r(j, k);
            error = std::max(error, std::abs(dot));
        }
    }
    CHECK(error < orthogonal);

    // an engine's own pool, which takes the tasks from the last to the first
    const Executor reversed(3, [](Index count, const Executor::Task& task) {
        for (Index i = count - 1; i >= 0; --i) task(i);
    });
    const LearnedRotation again = learn(reversed, all);
    CHECK(again.noise == learned.noise);
    CHECK(std::equal(r.data(), r.data() + r.size(), again.rotation.data()));

    const LearnedRotation settled = learn(Executor(1), {.steps = 1000, .tolerance = 0.05});
    CHECK(settled.has_settled);
    CHECK(settled.steps() < 1000);
    const LearnedRotation none = learn(Executor(1), {.steps = 0});
    CHECK(none.noise.size() == 1);
    CHECK(std::equal(start.data(), start.data() + start.size(), none.rotation.data()));
}

TEST_CASE("what is no rotation, or fits none, is refused", "[transform]") {
    EigenBackend backend;
    RotationNoise noise(backend, 4);
    const Matrix<float> x = random_rows(5, 6, 1);
    const Matrix<float> w = random_rows(8, 8, 2);
    const std::vector<double> squares(7, 1.0);
    CHECK_THROWS_WITH(RotationNoise(backend, 4, 6),
                      Catch::Matchers::ContainsSubstring("norm is 6, expected a power of two"));
    CHECK_THROWS_WITH(RotationNoise(backend, 0), Catch::Matchers::ContainsSubstring("features is 0"));
    CHECK_THROWS_WITH(noise.add_inputs(x.view(), {}),
                      Catch::Matchers::ContainsSubstring("x.cols is 6, expected a multiple of 4"));
    CHECK_THROWS_WITH(noise.add_readers(w.view(), {}, 0, w.view()),
                      Catch::Matchers::ContainsSubstring("group_size is 0"));
    CHECK_THROWS_WITH(noise.add_readers(w.view(), {}, -1, x.view()),
                      Catch::Matchers::ContainsSubstring("gram.cols is 6"));
    CHECK_THROWS_WITH(noise.add_writers(w.view(), {}, -1, squares),
                      Catch::Matchers::ContainsSubstring("squares has 7, expected 8"));
    CHECK_THROWS_WITH(noise.add_readers(w.view(), {}, -1, w.view(), -1),
                      Catch::Matchers::ContainsSubstring("weight is -1"));
    Matrix<double> start = signed_hadamard(4, 0);
    CHECK(learn_rotation(noise, start.view()).has_settled);  // no noise, nothing to learn
    Matrix<float> bad = random_rows(3, 4, 3);
    bad(1, 2) = std::numeric_limits<float>::infinity();
    noise.add_inputs(bad.view(), {});
    CHECK_THROWS_WITH(learn_rotation(noise, start.view()),
                      Catch::Matchers::ContainsSubstring("the noise at start is"));
    start(0, 0) += 1e-3;
    CHECK_THROWS_WITH(learn_rotation(noise, start.view()),
                      Catch::Matchers::ContainsSubstring("expected below 1e-6: an orthogonal matrix"));
    CHECK_THROWS_WITH(learn_rotation(noise, start.view(), {.steps = -1}),
                      Catch::Matchers::ContainsSubstring("steps is -1"));
}
