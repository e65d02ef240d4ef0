// Precision::split at sizes where it takes the place of fp32, against the GPU's double arithmetic: products,
// triangular solves and factorizations, and whole solves against Precision::fp32.

#include "catch.hpp"
#include "cuda/backends.hpp"
#include "residua/solver/solver.hpp"
#include "residua/solver/workspace.hpp"

namespace {

using namespace residua;

// fp32's own products of these sizes are off by 0.4e-6 to 1.5e-6.
constexpr double as_fp32 = 3e-6;
// Solves and factorizations, whose factors are well conditioned here.
constexpr double of_solves = 1e-5;

template <class T>
struct Host {
    Index rows, cols;
    std::vector<T> values;

    T& operator()(Index i, Index j) { return values[std::size_t(i * cols + j)]; }
    T operator()(Index i, Index j) const { return values[std::size_t(i * cols + j)]; }
};

/// Numbers in [-1, 1); those of every 97th column, `outlier` times as large.
Host<float> random_matrix(Index rows, Index cols, std::uint64_t seed, float outlier = 1) {
    Host<float> matrix{rows, cols, std::vector<float>(std::size_t(rows * cols))};
    std::uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;
    for (std::size_t i = 0; i < matrix.values.size(); ++i) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        matrix.values[i] = float(std::int64_t(random)) * 0x1p-63f;
        if (Index(i) % cols % 97 == 5) matrix.values[i] *= outlier;
    }
    return matrix;
}

/// R with a dominant diagonal, garbage below it.
Host<float> random_factor(Index n, float garbage) {
    Host<float> r = random_matrix(n, n, 11);
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j)
            r(i, j) = j > i ? r(i, j) / std::sqrt(float(n)) : j == i ? 2.0f : garbage;
    }
    return r;
}

CudaBackend& split() {
    static CudaBackend backend;
    return backend;
}

template <class T>
DeviceMatrix<T> upload(const Host<float>& matrix) {
    auto result = split().allocate<T>(matrix.rows, matrix.cols);
    split().write(std::vector<T>(matrix.values.begin(), matrix.values.end()), result.view());
    return result;
}

enum class Triangle { All, Upper, Lower };

/// |a - truth| / |truth|; NaN never passes.
double error_of(MatrixView<const float> a, MatrixView<const double> truth, Triangle part = Triangle::All) {
    const auto values = split().read(a);
    const auto expected = split().read(truth);
    double error = 0;
    double size = 0;
    for (Index i = 0; i < a.rows; ++i) {
        for (Index j = 0; j < a.cols; ++j) {
            if ((part == Triangle::Upper && j < i) || (part == Triangle::Lower && j > i)) continue;
            const auto at = std::size_t(i * a.cols + j);
            error += (double(values[at]) - expected[at]) * (double(values[at]) - expected[at]);
            size += expected[at] * expected[at];
        }
    }
    return std::sqrt(error / size);
}

constexpr auto not_a_number = std::numeric_limits<float>::quiet_NaN();

struct Product {
    Index rows, cols, depth;
    bool transposed;
    float scale = 1;    ///< of A, and the inverse of X's
    float outlier = 1;  ///< of some columns of both
};

double product_error(const Product& p, float beta) {
    const Host<float> a = [&] {
        auto matrix = p.transposed ? random_matrix(p.depth, p.rows, 1, p.outlier)
                                   : random_matrix(p.rows, p.depth, 1, p.outlier);
        for (float& v : matrix.values) v *= p.scale;
        return matrix;
    }();
    auto x = random_matrix(p.depth, p.cols, 2, p.outlier);
    for (float& v : x.values) v /= p.scale;
    auto c = random_matrix(p.rows, p.cols, 3);
    const Transpose transpose = p.transposed ? Transpose::Yes : Transpose::No;
    auto truth = upload<double>(c);
    split().multiply<double>(-2.0, transpose, upload<double>(a).view(), upload<double>(x).view(),
                             double(beta), truth.view());
    if (beta == 0) std::fill(c.values.begin(), c.values.end(), not_a_number);  // is not read
    auto result = upload<float>(c);
    split().multiply<float>(-2.0f, transpose, upload<float>(a).view(), upload<float>(x).view(), beta,
                            result.view());
    return error_of(result.view(), truth.view());
}

}  // namespace

TEST_CASE("Split products are as accurate as fp32", "[cuda][precision]") {
    for (const bool transposed : {false, true}) {
        for (const float beta : {0.0f, 1.0f, -0.5f}) {
            for (const Product& p : {Product{1024, 1024, 1024, transposed},
                                     {512, 4096, 512, transposed},
                                     {515, 1003, 2050, transposed},
                                     {1030, 1001, 5001, transposed, 1e-15f},
                                     {1030, 1001, 1001, transposed, 1e15f},
                                     {1024, 1536, 3072, transposed, 1, 1000}}) {
                CAPTURE(p.rows, p.cols, p.depth, transposed, beta, p.scale, p.outlier);
                CHECK(product_error(p, beta) <= as_fp32);
            }
        }
    }
}

TEST_CASE("Split products of strided views leave what surrounds them", "[cuda][precision]") {
    const auto a = random_matrix(1100, 1100, 1);
    const auto x = random_matrix(1100, 1300, 2);
    const auto before = random_matrix(1100, 1400, 3);
    auto c = upload<float>(before);
    auto truth = upload<double>(before);
    split().multiply<float>(1.0f, Transpose::No, upload<float>(a).view().block(3, 5, 1025, 1031),
                            MatrixView<const float>(upload<float>(x).view().block(7, 9, 1031, 1027)), 1.0f,
                            c.view().block(11, 13, 1025, 1027));
    split().multiply<double>(1.0, Transpose::No, upload<double>(a).view().block(3, 5, 1025, 1031),
                             MatrixView<const double>(upload<double>(x).view().block(7, 9, 1031, 1027)), 1.0,
                             truth.view().block(11, 13, 1025, 1027));
    CHECK(error_of(c.view(), truth.view()) <= as_fp32);
    const auto after = split().read(c.view());
    bool same = true;
    for (Index i = 0; i < 1100; ++i) {
        for (Index j = 0; j < 1400; ++j) {
            const bool inside = i >= 11 && i < 11 + 1025 && j >= 13 && j < 13 + 1027;
            same = same && (inside || after[std::size_t(i * 1400 + j)] == before(i, j));
        }
    }
    CHECK(same);
}

TEST_CASE("Split products hide no NaN and no infinity", "[cuda][precision]") {
    const Index n = 1024;
    for (const float bad : {not_a_number, std::numeric_limits<float>::infinity()}) {
        auto x = random_matrix(n, n, 2);
        x(700, 300) = bad;
        auto c = upload<float>(random_matrix(n, n, 3));
        split().multiply<float>(1.0f, Transpose::No, upload<float>(random_matrix(n, n, 1)).view(),
                                upload<float>(x).view(), 1.0f, c.view());
        const auto result = split().read(c.view());
        bool found = true;
        for (Index i = 0; i < n; ++i) found = found && !std::isfinite(result[std::size_t(i * n + 300)]);
        CHECK(found);
    }
}

TEST_CASE("Split products by rows that become known piece by piece", "[cuda][precision]") {
    const Index n = 2300;
    const Index cols = 2001;
    const Index rows = 700;
    auto x = random_matrix(n, cols, 2);
    // pieces of very different size, one of them zero: those that are small beside others count less for the sum
    const auto size_of = [](Index k) { return k < 512 ? 1e-3f : k < 700 ? 0.0f : k < 1500 ? 300.0f : 1.0f; };
    for (Index k = 0; k < n; ++k)
        for (Index j = 0; j < cols; ++j) x(k, j) *= size_of(k);
    const auto right = upload<float>(x);
    const auto wide = upload<double>(x);
    auto factor = split().right_factor<float>(n, cols);
    REQUIRE(factor.cols == cols);
    Index known = 0;
    for (const Index end : {Index(512), Index(700), Index(1500), n}) {
        split().extend(factor, known, right.view().row_range(known, end - known));
        known = end;
        CAPTURE(known);
        for (const bool transposed : {false, true}) {
            const auto a = transposed ? random_matrix(known, rows, 1) : random_matrix(rows, known, 1);
            const auto c = random_matrix(rows, cols, 3);
            const Transpose transpose = transposed ? Transpose::Yes : Transpose::No;
            auto result = upload<float>(c);
            auto truth = upload<double>(c);
            split().multiply<float>(2.0f, transpose, upload<float>(a).view(), factor,
                                    right.view().row_range(0, known), 1.0f, result.view());
            split().multiply<double>(2.0, transpose, upload<double>(a).view(),
                                     wide.view().row_range(0, known), 1.0, truth.view());
            CHECK(error_of(result.view(), truth.view()) <= as_fp32);
        }
    }
    CHECK(split().right_factor<float>(100, 100).cols == 0);  // too small to be worth it
}

TEST_CASE("Triangular solves by split products", "[cuda][precision]") {
    for (const auto& [n, cols] :
         {std::pair<Index, Index>{512, 600}, {1337, 2048}, {2049, 700}, {2944, 2944}}) {
        CAPTURE(n, cols);
        const auto r = upload<float>(random_factor(n, 1e30f));
        const auto wide = upload<double>(random_factor(n, 0));
        const auto right = random_matrix(n, cols, 5);
        auto x = upload<float>(right);
        auto truth = upload<double>(right);
        split().solve_upper<float>(r.view(), x.view());
        split().solve_upper<double>(wide.view(), truth.view());
        CHECK(error_of(x.view(), truth.view()) <= of_solves);
        if (n == cols) {
            x = upload<float>(right);
            REQUIRE(split().solve_upper_below(r.view(), x.view()));
            CHECK(error_of(x.view(), truth.view(), Triangle::Lower) <= of_solves);
        }
        x = upload<float>(right);
        truth = upload<double>(right);
        split().solve_upper_transposed<float>(r.view(), x.view());
        split().solve_upper_transposed<double>(wide.view(), truth.view());
        CHECK(error_of(x.view(), truth.view()) <= of_solves);
    }
    auto small = upload<float>(random_matrix(300, 300, 6));
    CHECK_FALSE(split().solve_upper_below(upload<float>(random_factor(300, 0)).view(), small.view()));
    CHECK(split().read(small.view()) == random_matrix(300, 300, 6).values);
}

TEST_CASE("A factorization by split products", "[cuda][precision]") {
    const Index n = 8192 + 136;
    const auto r = random_factor(n, 0);
    const auto truth = upload<double>(r);
    auto gram = split().allocate<double>(n, n);
    auto transposed = split().allocate<double>(n, n);
    split().transpose<double>(truth.view(), transposed.view());
    split().multiply<double>(1.0, Transpose::No, truth.view(), std::as_const(transposed).view(), 0.0,
                             gram.view());
    Host<float> h{n, n, {}};
    for (const double v : split().read(gram.view())) h.values.push_back(float(v));
    auto factor = upload<float>(h);
    REQUIRE(split().fast_cholesky_upper(factor.view()) == true);
    CHECK(error_of(factor.view(), truth.view(), Triangle::Upper) <= of_solves);
    const auto values = split().read(factor.view());
    bool kept = true;
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < i; ++j) kept = kept && values[std::size_t(i * n + j)] == h(i, j);
    }
    CHECK(kept);

    SECTION("refuses what is not positive definite") {
        for (const Index k : {Index(0), Index(4500), n - 1}) {
            auto broken = h;
            broken(k, k) = -1;
            auto matrix = upload<float>(broken);
            CHECK(split().fast_cholesky_upper(matrix.view()) == false);
        }
    }
    SECTION("is left to cuSOLVER where that is as fast, and in double") {
        auto small = upload<float>(random_matrix(300, 300, 6));
        CHECK_FALSE(split().fast_cholesky_upper(small.view()).has_value());
        CHECK(split().read(small.view()) == random_matrix(300, 300, 6).values);
        CHECK_FALSE(split().fast_cholesky_upper(gram.view()).has_value());
    }
}

namespace {

struct Solved {
    std::vector<Code> codes;
    Report report;
};

template <class M>
Solved solve(CudaBackend& gpu, Index m, Index n, const SolverOptions& options) {
    const auto x = random_matrix(2 * n, n, 7, 20);
    auto x_fp = random_matrix(2 * n, n, 8);
    for (std::size_t i = 0; i < x.values.size(); ++i) x_fp.values[i] = x.values[i] + 0.1f * x_fp.values[i];
    const auto w = random_matrix(m, n, 9);
    Solver<M, float, CudaBackend> solver(gpu, n, options);
    solver.accumulate(MatrixView<const float>(x.values.data(), 2 * n, n),
                      MatrixView<const float>(x_fp.values.data(), 2 * n, n));
    const auto q = solver.quantize(MatrixView<const float>(w.values.data(), m, n), IntegerGrid{.bits = 4});
    REQUIRE(q);
    return {gpu.read(q.codes.view()), q.report};
}

}  // namespace

TEMPLATE_TEST_CASE("Solves by split products find fp32's codes", "[cuda][precision]", GPTQ, GPTAQ, QEP) {
    static CudaBackend fp32({.precision = Precision::fp32});
    const Index m = 1024;
    const Index n = 2048;
    SolverOptions options;
    options.report_objective = true;
    for (const Ordering ordering : {Ordering::Natural, Ordering::Activation}) {
        options.ordering = ordering;
        const Solved expected = solve<TestType>(fp32, m, n, options);
        const Solved solved = solve<TestType>(split(), m, n, options);
        Index same = 0;
        for (std::size_t i = 0; i < solved.codes.size(); ++i) same += solved.codes[i] == expected.codes[i];
        // A code at a tie takes the rest of its row along; two orders of fp32's sums differ as much.
        CHECK(double(same) >= 0.999 * double(m * n));
        CHECK(*solved.report.achieved() == Approx(*expected.report.achieved()).epsilon(1e-4));
        CHECK(expected.report.products == Arithmetic::Element);
        CHECK(solved.report.products == Arithmetic::Split);
        CHECK(solved.report.factorization == Arithmetic::Element);  // too small for another one
    }
}

TEST_CASE("Memory of a solve by split products is announced", "[cuda][precision]") {
    const Index m = 1024;
    const Index n = 2048;
    CudaBackend gpu;
    const auto x = random_matrix(n, n, 7);
    const auto w = random_matrix(m, n, 9);
    auto weights = gpu.allocate<float>(m, n);
    gpu.write(w.values, weights.view());
    Solver<GPTAQ, float, CudaBackend> solver(gpu, n);
    const MatrixView<const float> tokens(x.values.data(), n, n);
    solver.accumulate(tokens, tokens);
    gpu.memory().reset_peak();
    const std::size_t before = gpu.memory().used_bytes();
    REQUIRE(solver.quantize(std::as_const(weights).view(), IntegerGrid{}));
    const double taken = double(gpu.memory().peak_bytes() - before);
    const double announced = double(workspace_bytes<GPTAQ, float>(gpu, m, n));
    CAPTURE(taken / announced);
    CHECK(taken <= announced);
    CHECK(taken >= 0.8 * announced);  // products need not all be of the largest kind
}
