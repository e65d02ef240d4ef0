// Every operation of the Backend concept against the equation beside it, at sizes around its tiles.

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Sums of up to 600 products of numbers of size 1, with a well-conditioned factor.
template <class Tag>
constexpr double within = std::is_same_v<typename Tag::Scalar, double> ? 1e-11 : 5e-3;

reference::Matrix random_matrix(Index rows, Index cols, std::uint64_t seed) {
    Random random(seed);
    reference::Matrix matrix(rows, cols);
    for (double& v : matrix.data) v = to_float(random.normal());
    return matrix;
}

double distance(const reference::Matrix& a, const reference::Matrix& b) {
    if (a.rows != b.rows || a.cols != b.cols) return 1e300;
    double worst = 0;
    for (std::size_t i = 0; i < a.data.size(); ++i) {
        const double difference = std::abs(a.data[i] - b.data[i]);
        if (!(difference <= worst)) worst = std::isnan(difference) ? 1e300 : difference;
    }
    return worst;
}

/// Upper triangle with a dominant diagonal; the strict lower triangle, which must not be read, is garbage.
reference::Matrix random_factor(Index n, std::uint64_t seed, double garbage) {
    reference::Matrix r = random_matrix(n, n, seed);
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
            if (j > i) r(i, j) = to_float(r(i, j) / std::sqrt(double(n)));
            if (j == i) r(i, j) = to_float(2 + std::abs(r(i, j)));
            if (j < i) r(i, j) = garbage;
        }
    }
    return r;
}

constexpr Index sizes[] = {1, 2, 7, 64, 127, 128, 129, 257, 300};

std::vector<Index> shuffled(Index n, std::uint64_t seed) {
    Random random(seed);
    std::vector<Index> order = detail::natural_order(n);
    for (Index i = n - 1; i > 0; --i)
        std::swap(order[std::size_t(i)], order[std::size_t(random.bits() % std::uint64_t(i + 1))]);
    return order;
}

constexpr double garbage = 1e30;

}  // namespace

TEMPLATE_TEST_CASE("multiply", "[backend]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const Index shapes[][3] = {{1, 1, 1}, {3, 5, 2}, {130, 70, 257}, {513, 300, 129}, {4, 600, 3}, {5, 0, 6}};
    for (const auto& [m, k, n] : shapes) {
        const auto a = random_matrix(m, k, 1);
        const auto x = random_matrix(k, n, 2);
        const auto c = random_matrix(m, n, 3);
        const auto plain = upload<TestType>(a);
        const auto transposed = upload<TestType>(reference::transposed(a));
        const auto right = upload<TestType>(x);
        const auto product = reference::product(a, x);
        for (const double beta : {0.0, 1.0, -0.5}) {
            reference::Matrix expected = c;
            for (std::size_t i = 0; i < c.data.size(); ++i)
                expected.data[i] = beta * c.data[i] + 2 * product.data[i];
            auto start = c;
            if (beta == 0) std::fill(start.data.begin(), start.data.end(), std::nan(""));  // is not read
            auto result = upload<TestType>(start);
            backend.multiply(T(2), Transpose::No, plain.view(), right.view(), T(beta), result.view());
            CHECK(distance(download<TestType>(result.view()), expected) <= within<TestType>);
            result = upload<TestType>(start);
            backend.multiply(T(2), Transpose::Yes, transposed.view(), right.view(), T(beta), result.view());
            CHECK(distance(download<TestType>(result.view()), expected) <= within<TestType>);
        }
    }
    SECTION("of views with strides leaves what surrounds them") {
        const auto a = upload<TestType>(random_matrix(20, 20, 4));
        auto c = upload<TestType>(random_matrix(20, 20, 5));
        const auto before = download<TestType>(c.view());
        backend.multiply(T(1), Transpose::No, a.view().block(2, 3, 4, 5), a.view().block(7, 8, 5, 6), T(0),
                         c.view().block(9, 10, 4, 6));
        const auto host = download<TestType>(a.view());
        const auto after = download<TestType>(c.view());
        double worst = 0;
        for (Index i = 0; i < 20; ++i) {
            for (Index j = 0; j < 20; ++j) {
                double expected = before(i, j);
                if (i >= 9 && i < 13 && j >= 10 && j < 16) {
                    expected = 0;
                    for (Index k = 0; k < 5; ++k)
                        expected += host(i - 9 + 2, k + 3) * host(k + 7, j - 10 + 8);
                }
                worst = std::max(worst, std::abs(after(i, j) - expected));
            }
        }
        CHECK(worst <= within<TestType>);
    }
}

TEMPLATE_TEST_CASE("cholesky_upper", "[backend]", RESIDUA_TEST_BACKENDS) {
    auto& backend = TestType::get();
    for (const Index n : sizes) {
        const auto r = random_factor(n, 10, 0);
        auto a = reference::product(r, reference::transposed(r));
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < i; ++j) a(i, j) = a(j, i);
        auto factor = upload<TestType>(a);
        REQUIRE(backend.cholesky_upper(factor.view()));
        auto result = download<TestType>(factor.view());
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < i; ++j) result(i, j) = 0;
        INFO("n = " << n);
        CHECK(distance(result, r) <= within<TestType>);
    }
}

TEMPLATE_TEST_CASE("cholesky_upper refuses what is not positive definite", "[backend]",
                   RESIDUA_TEST_BACKENDS) {
    auto& backend = TestType::get();
    const auto fails_at = [&](Index n, Index k, double pivot) {
        reference::Matrix a(n, n);
        for (Index i = 0; i < n; ++i) a(i, i) = i == k ? pivot : 1;
        auto matrix = upload<TestType>(a);
        return !backend.cholesky_upper(matrix.view());
    };
    for (const Index n : {1, 64, 128, 129, 300}) {
        for (const Index k : {Index(0), n / 2, n - 1}) {
            INFO("n = " << n << ", pivot " << k);
            CHECK(fails_at(n, k, 0));
            CHECK(fails_at(n, k, -1));
            CHECK(fails_at(n, k, std::nan("")));
            CHECK(fails_at(n, k, std::numeric_limits<double>::infinity()));
            CHECK_FALSE(fails_at(n, k, 1e-6));
        }
    }
    reference::Matrix a(2, 2, {1, std::nan(""), std::nan(""), 1});
    auto matrix = upload<TestType>(a);
    CHECK_FALSE(backend.cholesky_upper(matrix.view()));
}

TEMPLATE_TEST_CASE("solve_upper and solve_upper_transposed", "[backend]", RESIDUA_TEST_BACKENDS) {
    auto& backend = TestType::get();
    for (const Index n : sizes) {
        for (const Index width : {1, 31, 260}) {
            INFO("n = " << n << ", right-hand sides " << width);
            const auto clean = random_factor(n, 20, 0);
            const auto factor = upload<TestType>(random_factor(n, 20, garbage));
            const auto x = random_matrix(n, width, 21);
            auto solved = upload<TestType>(reference::product(clean, x));
            backend.solve_upper(factor.view(), solved.view());
            CHECK(distance(download<TestType>(solved.view()), x) <= within<TestType>);
            solved = upload<TestType>(reference::product(reference::transposed(clean), x));
            backend.solve_upper_transposed(factor.view(), solved.view());
            CHECK(distance(download<TestType>(solved.view()), x) <= within<TestType>);
        }
    }
}

TEMPLATE_TEST_CASE("Elementwise operations", "[backend]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    for (const Index n : {1, 16, 65, 130}) {
        const auto a = random_matrix(n, n, 30);
        const auto b = random_matrix(n, n, 31);
        const auto left = upload<TestType>(a);
        auto c = upload<TestType>(b);
        double dot = 0;
        auto total = b;
        for (std::size_t i = 0; i < a.data.size(); ++i) {
            total.data[i] += a.data[i];
            dot += a.data[i] * b.data[i];
        }
        CHECK(std::abs(backend.dot(left.view(), read_only(c.view())) - dot) <= 1e-10 * double(n * n));
        backend.add(left.view(), c.view());
        CHECK(distance(download<TestType>(c.view()), total) <= 1e-6);
        backend.subtract(left.view(), c.view());
        CHECK(distance(download<TestType>(c.view()), b) <= 1e-6);
        backend.copy(left.view(), c.view());
        CHECK(download<TestType>(c.view()).data == a.data);

        const auto diagonal = backend.diagonal(left.view());
        REQUIRE(Index(diagonal.size()) == n);
        CHECK(double(diagonal.back()) == a(n - 1, n - 1));
        std::vector<T> values;
        for (Index i = 0; i < n; ++i) values.push_back(T(i + 1));
        backend.set_diagonal(c.view(), values);
        backend.mirror(c.view());
        auto mirrored = download<TestType>(c.view());
        bool right = true;
        for (Index i = 0; i < n; ++i) {
            right = right && mirrored(i, i) == double(i + 1);
            for (Index j = i + 1; j < n; ++j)
                right = right && mirrored(i, j) == a(i, j) && mirrored(j, i) == a(i, j);
        }
        CHECK(right);

        backend.copy(left.view(), c.view());
        backend.clear_row(c.view(), n / 2);
        backend.clear_column(c.view(), n - 1);
        auto cleared = a;
        for (Index i = 0; i < n; ++i) cleared(n / 2, i) = cleared(i, n - 1) = 0;
        CHECK(download<TestType>(c.view()).data == cleared.data);
        backend.set_zero(c.view());
        CHECK(download<TestType>(c.view()).data == reference::Matrix(n, n).data);
    }
}

TEMPLATE_TEST_CASE("Permutations and transposition", "[backend]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    for (const Index n : {1, 31, 64, 130}) {
        const Index m = n / 2 + 1;
        const auto order = shuffled(n, 40);
        const auto at = [&](Index i) { return order[std::size_t(i)]; };
        const auto a = random_matrix(n, n, 41);
        const auto source = upload<TestType>(a);
        auto c = backend.template allocate<T>(n, n);
        reference::Matrix permuted(n, n);
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j) permuted(i, j) = a(at(i), at(j));
        backend.permute(source.view(), order, c.view());
        CHECK(download<TestType>(c.view()).data == permuted.data);
        backend.permute_transposed(source.view(), order, c.view());
        CHECK(download<TestType>(c.view()).data == reference::transposed(permuted).data);

        const auto w = random_matrix(m, n, 42);
        const auto weights = upload<TestType>(w);
        auto columns = backend.template allocate<T>(n, m);
        auto back = backend.template allocate<T>(m, n);
        auto flag = backend.template allocate<Code>(1, 1);
        backend.set_zero(flag.view());
        backend.load_columns(weights.view(), order, columns.view(), flag.view().data);
        CHECK(backend.read(flag.view())[0] == 0);
        const auto loaded = download<TestType>(columns.view());
        bool right = true;
        for (Index k = 0; k < n; ++k)
            for (Index r = 0; r < m; ++r) right = right && loaded(k, r) == w(r, at(k));
        CHECK(right);
        backend.store_columns(read_only(columns.view()), order, back.view());
        CHECK(download<TestType>(back.view()).data == w.data);
        backend.transpose(weights.view(), columns.view());
        CHECK(download<TestType>(columns.view()).data == reference::transposed(w).data);

        for (const Index bad : {Index(0), n - 1}) {
            auto broken = w;
            broken(m - 1, bad) = std::nan("");
            const auto matrix = upload<TestType>(broken);
            backend.set_zero(flag.view());
            backend.load_columns(matrix.view(), order, columns.view(), flag.view().data);
            CHECK(backend.read(flag.view())[0] == 1);
        }
    }
}

TEMPLATE_TEST_CASE("Groups are fitted, rounded and decoded", "[backend]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const Index n = 20;
    const IntegerGrid grid{.bits = 3, .symmetry = Symmetry::Restricted};
    for (const Index rows : {1, 15, 16, 17, 32, 33, 70}) {  // around the lanes of a tile
        const auto w = random_matrix(n, rows, 50);          // columns of a layer
        const auto columns = upload<TestType>(w);
        const std::vector<std::vector<Index>> members = {
            {19, 0, 7}, {1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, {18}};
        std::vector<Index> group_of(std::size_t(n), 1);
        for (const Index k : members[0]) group_of[std::size_t(k)] = 0;
        group_of[18] = 2;
        auto scales = backend.template allocate<T>(3, rows);
        auto zeros = backend.template allocate<T>(3, rows);
        auto codes = backend.template allocate<Code>(n, rows);
        auto rest = upload<TestType>(w);
        backend.fit(grid, columns.view(), MatrixView<const T>(), members, scales.view(), zeros.view());
        backend.round(grid, columns.view(), group_of, read_only(scales.view()), read_only(zeros.view()),
                      codes.view());
        backend.subtract_decoded(grid, read_only(codes.view()), group_of, read_only(scales.view()),
                                 read_only(zeros.view()), rest.view());
        const auto scale = download<TestType>(scales.view());
        const auto code = backend.read(codes.view());
        const auto error = download<TestType>(rest.view());
        double worst = 0;
        bool nearest = true;
        for (Index r = 0; r < rows; ++r) {
            for (Index g = 0; g < 3; ++g) {
                double absmax = 0;
                for (const Index k : members[std::size_t(g)]) absmax = std::max(absmax, std::abs(w(k, r)));
                worst = std::max(worst, std::abs(scale(g, r) / (absmax / 3) - 1));
            }
            for (Index k = 0; k < n; ++k) {
                const double s = scale(group_of[std::size_t(k)], r);
                const double q = s * (code[std::size_t(k * rows + r)] - 4.0);
                nearest = nearest && std::abs(w(k, r) - q) <= s * (0.5 + 1e-6);
                worst = std::max(worst, std::abs(error(k, r) - (w(k, r) - q)));
            }
        }
        CHECK(nearest);
        CHECK(worst <= 1e-6);
    }
}

TEMPLATE_TEST_CASE("Memory", "[backend]", RESIDUA_TEST_BACKENDS) {
    auto& backend = TestType::get();
    const auto a = random_matrix(7, 9, 60);
    const auto matrix = upload<TestType>(a);
    const auto block = download<TestType>(matrix.view().block(2, 3, 4, 5));
    for (Index i = 0; i < 4; ++i)
        for (Index j = 0; j < 5; ++j) CHECK(block(i, j) == a(i + 2, j + 3));
    CHECK(backend.slab_rows(100, 50) > 0);
    const auto start = backend.timestamp();
    CHECK(backend.seconds(start, backend.timestamp()) >= 0);
}
