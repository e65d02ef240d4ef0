// Dense linear algebra of the CPU at sizes of many tiles: against double, and the same bits however work is divided.

#include <thread>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Several blocks on the diagonal, of which the last is a part of one; several blocks of terms; odd register tiles.
constexpr Index dense_size = 600;
constexpr Index right_sides = 333;

/// Tasks on three threads, each from its end of the list.
void on_three_threads(Index count, const Executor::Task& task) {
    std::vector<std::thread> workers;
    for (Index first = 0; first < 3; ++first) {
        workers.emplace_back([&task, count, first] {
            for (Index i = count - 1 - first; i >= 0; i -= 3) task(i);
        });
    }
    for (std::thread& worker : workers) worker.join();
}

template <Real T>
Matrix<T> random_values(Index rows, Index cols, std::uint64_t seed) {
    Random random(seed);
    Matrix<T> matrix(rows, cols);
    for (Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = static_cast<T>(random.normal());
    return matrix;
}

template <Real T>
std::vector<T> upper_triangle(const Matrix<T>& a) {
    std::vector<T> values;
    for (Index i = 0; i < a.rows(); ++i)
        values.insert(values.end(), a.data() + i * a.stride() + i, a.data() + i * a.stride() + a.cols());
    return values;
}

/// H = X' X of 700 tokens, its factor R, R^-1 Y, R^-T Y and H Y.
template <Real T>
struct Dense {
    Matrix<T> gram, factor, solved, solved_transposed, product;

    explicit Dense(EigenBackend backend)
        : gram(dense_size, dense_size),
          factor(dense_size, dense_size),
          solved(random_values<T>(dense_size, right_sides, 2)),
          solved_transposed(random_values<T>(dense_size, right_sides, 2)),
          product(dense_size, right_sides) {
        const Matrix<T> x = random_values<T>(700, dense_size, 1);
        const Matrix<T> y = random_values<T>(dense_size, right_sides, 2);
        backend.set_zero(gram.view());
        backend.accumulate_gram(x.view(), std::span<const float>(), gram.view());
        backend.mirror(gram.view());
        backend.copy(read_only(gram.view()), factor.view());
        REQUIRE(backend.cholesky_upper(factor.view()));
        backend.solve_upper(read_only(factor.view()), solved.view());
        backend.solve_upper_transposed(read_only(factor.view()), solved_transposed.view());
        backend.multiply(T(1), Transpose::No, read_only(gram.view()), y.view(), T(0), product.view());
    }

    std::vector<std::vector<T>> bits() const {
        std::vector<std::vector<T>> all = {upper_triangle(gram), upper_triangle(factor)};
        for (const Matrix<T>* matrix : {&solved, &solved_transposed, &product})
            all.emplace_back(matrix->data(), matrix->data() + matrix->size());
        return all;
    }
};

}  // namespace

TEMPLATE_TEST_CASE("Factors and solutions of many blocks leave small residuals", "[backend][dense]",
                   RESIDUA_TEST_SCALARS) {
    using T = TestType;
    const Dense<T> dense{EigenBackend()};
    // Backward errors are a few roundings of each sum; n of them, relative to the largest element, are never reached.
    const double tolerance = double(dense_size) * double(std::numeric_limits<T>::epsilon());
    const auto r = [&](Index i, Index j) { return j < i ? 0.0 : double(dense.factor(i, j)); };
    const Matrix<T> y = random_values<T>(dense_size, right_sides, 2);
    double largest = 0, factor_residual = 0, solve_residual = 0, transposed_residual = 0;
    for (Index i = 0; i < dense_size; ++i) {
        for (Index j = i; j < dense_size; ++j) {
            double sum = double(dense.gram(i, j));
            largest = std::max(largest, std::abs(sum));
            for (Index k = j; k < dense_size; ++k) sum -= r(i, k) * r(j, k);
            factor_residual = std::max(factor_residual, std::abs(sum));
        }
    }
    for (Index c = 0; c < right_sides; c += 37) {
        for (Index i = 0; i < dense_size; ++i) {
            double sum = double(y(i, c)), transposed = sum;
            for (Index k = i; k < dense_size; ++k) sum -= r(i, k) * double(dense.solved(k, c));
            for (Index k = 0; k <= i; ++k) transposed -= r(k, i) * double(dense.solved_transposed(k, c));
            solve_residual = std::max(solve_residual, std::abs(sum));
            transposed_residual = std::max(transposed_residual, std::abs(transposed));
        }
    }
    CHECK(factor_residual <= tolerance * largest);
    CHECK(solve_residual <= tolerance * std::sqrt(largest));
    CHECK(transposed_residual <= tolerance * std::sqrt(largest));
}

TEMPLATE_TEST_CASE("Dense operations give the same bits for any number and order of threads",
                   "[backend][dense]", RESIDUA_TEST_SCALARS) {
    using T = TestType;
    const Dense<T> expected{EigenBackend(Executor(1))};
    for (const int threads : {3, 16, 64})
        CHECK(Dense<T>(EigenBackend(Executor(threads, on_three_threads))).bits() == expected.bits());

    // and for a part of the columns as for all, so that slabs may have any number of rows
    EigenBackend backend{Executor(1)};
    const Matrix<T> y = random_values<T>(dense_size, right_sides, 2);
    Matrix<T> part(dense_size, 21);
    for (const Index first : {Index(0), Index(5), right_sides - 21}) {
        backend.multiply(T(1), Transpose::No, expected.gram.view(), y.view().block(0, first, dense_size, 21),
                         T(0), part.view());
        Matrix<T> solved(dense_size, 21);
        backend.copy(y.view().block(0, first, dense_size, 21), solved.view());
        backend.solve_upper(expected.factor.view(), solved.view());
        bool same = true;
        for (Index i = 0; i < dense_size; ++i) {
            for (Index j = 0; j < 21; ++j)
                same = same && part(i, j) == expected.product(i, first + j) &&
                       solved(i, j) == expected.solved(i, first + j);
        }
        CHECK(same);
    }
}

TEMPLATE_TEST_CASE("A factorization of many blocks fails where a pivot is not positive", "[backend][dense]",
                   RESIDUA_TEST_SCALARS) {
    EigenBackend backend;
    for (const Index bad : {Index(0), Index(300), dense_size - 1}) {
        for (const double pivot :
             {0.0, -1.0, std::nan(""), double(std::numeric_limits<TestType>::infinity())}) {
            Matrix<TestType> a(dense_size, dense_size);
            backend.set_zero(a.view());
            backend.set_diagonal(a.view(), std::vector<TestType>(std::size_t(dense_size), TestType(1)));
            CHECK(backend.cholesky_upper(a.view()));
            a(bad, bad) = static_cast<TestType>(pivot);
            CHECK_FALSE(backend.cholesky_upper(a.view()));
        }
    }
}
