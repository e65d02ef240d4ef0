// Hadamard transforms against their explicit matrices and the theorems that define them.

#include "residua/transform/hadamard.hpp"

#include "catch.hpp"
#include "support/random.hpp"

using namespace residua;
using residua::test::Random;

namespace {

constexpr Index bases[] = {1, 12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 108, 124, 132, 140, 148, 156, 164, 172};

// Sums of up to 1400 products of numbers of size 1, in different orders.
template <class T>
constexpr double within = std::is_same_v<T, double> ? 1e-12 : 2e-5;

template <class T>
std::vector<T> random_values(Index count, std::uint64_t seed) {
    Random random(seed);
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& v : values) v = static_cast<T>(random.normal());
    return values;
}

template <class T>
double distance(const std::vector<T>& a, const std::vector<T>& b) {
    double worst = a.size() == b.size() ? 0 : 1e300;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        const double difference = std::abs(double(a[i]) - double(b[i]));
        worst = difference <= worst ? worst : difference;
    }
    return worst;
}

/// x Q for one row, by the definition.
template <class T>
std::vector<T> product(const HadamardTransform& q, const std::vector<T>& x) {
    std::vector<T> y;
    for (Index j = 0; j < q.features(); ++j) {
        double sum = 0;
        for (Index i = 0; i < q.features(); ++i) sum += double(x[std::size_t(i)]) * q.entry(i, j);
        y.push_back(static_cast<T>(sum));
    }
    return y;
}

template <class T>
std::vector<T> transposed(const std::vector<T>& x, Index rows, Index cols) {
    std::vector<T> y(x.size());
    for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < cols; ++j) y[std::size_t(j * rows + i)] = x[std::size_t(i * cols + j)];
    }
    return y;
}

/// max |Q Q^T - I|, with Q and Q Q^T by the fast transforms in T.
template <class T>
double orthogonality(Index n, HadamardOptions options) {
    const HadamardTransform q(n, options);
    std::vector<T> identity(static_cast<std::size_t>(n * n));
    for (Index i = 0; i < n; ++i) identity[std::size_t(i * n + i)] = 1;
    std::vector<T> matrix = identity;
    q.apply(MatrixView<T>(matrix.data(), n, n));
    q.apply_transpose(MatrixView<T>(matrix.data(), n, n));
    return distance(matrix, identity);
}

}  // namespace

TEST_CASE("Hadamard bases are Hadamard matrices, in integers", "[transform]") {
    for (const Index order : bases) {
        CAPTURE(order);
        const std::vector<signed char> h = residua::detail::hadamard::hadamard_base(order);
        int wrong = 0;
        for (Index i = 0; i < order; ++i) {
            for (Index j = 0; j < order; ++j) {
                int sum = 0;
                for (Index k = 0; k < order; ++k)
                    sum += h[std::size_t(i * order + k)] * h[std::size_t(j * order + k)];
                wrong += sum != (i == j ? order : 0);
                wrong += std::abs(h[std::size_t(i * order + j)]) != 1;
            }
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("every feature count of common models has a Hadamard transform", "[transform]") {
    for (const Index n : {576,  768,  896,  1536,  2048,  3072,  4096,  4864,  5120,  5632,  6144,  6912,
                          8192, 8960, 9216, 11008, 13824, 14336, 16384, 17920, 18944, 27648, 28672, 53248})
        CHECK(largest_hadamard_block(n) == n);
    CHECK(residua::detail::hadamard::hadamard_base_order(4096) == 1);
    CHECK(residua::detail::hadamard::hadamard_base_order(14336) == 28);
    CHECK(residua::detail::hadamard::hadamard_base_order(11008) == 172);
    CHECK(residua::detail::hadamard::hadamard_base_order(40) == 20);
    CHECK(residua::detail::hadamard::hadamard_base_order(6) == 0);  // 12 does not divide 6
    CHECK(residua::detail::hadamard::hadamard_base_order(4 * 23) == 0);
    CHECK(residua::detail::hadamard::hadamard_base_order(0) == 0);
    CHECK(largest_hadamard_block(23 * 64) == 64);
    CHECK(largest_hadamard_block(29568) == 32 * 132);  // of 2^7 3 7 11
    CHECK(largest_hadamard_block(7) == 1);
}

TEMPLATE_TEST_CASE("the fast transform is the product with the explicit matrix", "[transform]", float,
                   double) {
    for (const Index base : bases) {
        for (const Index power : {1, 2, 8, 32}) {
            if (base == 1 && power < 8) continue;
            const Index n = base * power * (base == 1 ? 64 : 1);
            if (n > 1400) continue;
            CAPTURE(base, n);
            const HadamardTransform q(n, {.seed = 5});
            CHECK(q.base() == (n == 40 ? 20 : base));
            const std::vector<TestType> x = random_values<TestType>(n, 1);
            std::vector<TestType> y = x;
            q.apply(MatrixView<TestType>(y.data(), 1, n));
            CHECK(distance(y, product(q, x)) < within<TestType>);
            q.apply_transpose(MatrixView<TestType>(y.data(), 1, n));
            CHECK(distance(y, x) < within<TestType>);
        }
    }
}

TEST_CASE("the fast transform is orthogonal to 1e-6 in float", "[transform]") {
    for (const Index base : bases) {
        CAPTURE(base);
        for (const Index power : {1, 4, 16}) {
            if (base * power > 700) continue;
            CHECK(orthogonality<float>(base * power, {}) < 1e-6);
        }
    }
    CHECK(orthogonality<float>(1024, {.seed = 1}) < 1e-6);
    CHECK(orthogonality<float>(896, {.seed = 1}) < 1e-6);
    CHECK(orthogonality<double>(896, {.seed = 1}) < 1e-14);
}

TEMPLATE_TEST_CASE("blocks and inner features mix what they name", "[transform]", float, double) {
    struct Case {
        Index n, block, inner, expected;
    };
    for (const auto& [n, block, inner, expected] :
         {Case{1, 0, 1, 1}, Case{2, 0, 1, 2}, Case{3, 0, 1, 1}, Case{184, 0, 1, 8}, Case{96, 16, 1, 16},
          Case{96, 12, 8, 12}, Case{96, 4, 3, 4}, Case{240, 12, 5, 12}, Case{512, 8, 64, 8},
          Case{92, 0, 23, 4}, Case{448, 0, 16, 28}}) {
        CAPTURE(n, block, inner);
        const HadamardTransform q(n, {.block = block, .inner = inner, .seed = 9});
        CHECK(q.block() == expected);
        const std::vector<TestType> x = random_values<TestType>(n, 2);
        std::vector<TestType> y = x;
        q.apply(MatrixView<TestType>(y.data(), 1, n));
        CHECK(distance(y, product(q, x)) < within<TestType>);
        q.apply_transpose(MatrixView<TestType>(y.data(), 1, n));
        CHECK(distance(y, x) < within<TestType>);
    }
}

TEST_CASE("all heads of a projection are mixed head by head, then across heads", "[transform]") {
    // H_(heads head_dim) = (H_heads (x) I) (I (x) H_head_dim), what QuaRot splits between weights and
    // activations
    constexpr Index heads = 8;
    constexpr Index head_dim = 32;
    const std::vector<double> x = random_values<double>(heads * head_dim, 3);
    std::vector<double> whole = x;
    std::vector<double> steps = x;
    const auto apply = [](std::vector<double>& values, HadamardOptions options) {
        HadamardTransform(heads * head_dim, options)
            .apply(MatrixView<double>(values.data(), 1, heads * head_dim));
    };
    apply(whole, {});
    apply(steps, {.block = head_dim});
    apply(steps, {.block = heads, .inner = head_dim});
    CHECK(distance(whole, steps) < 1e-13);
}

TEMPLATE_TEST_CASE("from the left is from the right of the transpose", "[transform]", float, double) {
    for (const Index columns : {1, 15, 16, 100}) {
        constexpr Index n = 56;
        CAPTURE(columns);
        const HadamardTransform q(n, {.seed = 4});
        const std::vector<TestType> x = random_values<TestType>(n * columns, 6);
        std::vector<TestType> left = x;
        q.apply_left(MatrixView<TestType>(left.data(), n, columns), Executor());
        std::vector<TestType> right = transposed(x, n, columns);
        q.apply(MatrixView<TestType>(right.data(), columns, n));
        CHECK(distance(transposed(left, n, columns), right) < within<TestType>);
        q.apply_left_transpose(MatrixView<TestType>(left.data(), n, columns));
        CHECK(distance(left, x) < within<TestType>);
    }
}

TEST_CASE("rotating activations and weights leaves their product alone", "[transform]") {
    constexpr Index n = 112;
    const HadamardTransform q(n, {.seed = 11});
    std::vector<double> x = random_values<double>(n, 1);
    std::vector<double> w = random_values<double>(3 * n, 2);
    const auto outputs = [&] {
        std::vector<double> y(3);
        for (Index r = 0; r < 3; ++r) {
            for (Index i = 0; i < n; ++i) y[std::size_t(r)] += w[std::size_t(r * n + i)] * x[std::size_t(i)];
        }
        return y;
    };
    const std::vector<double> before = outputs();
    q.apply(MatrixView<double>(x.data(), 1, n));
    q.apply(MatrixView<double>(w.data(), 3, n));
    CHECK(distance(outputs(), before) < 1e-12);
}

TEST_CASE("an outlier is spread evenly", "[transform]") {
    std::vector<float> x(448, 0.0f);
    x[17] = 1000;
    HadamardTransform(448, {.seed = 1}).apply(MatrixView<float>(x.data(), 1, 448));
    for (const float v : x) CHECK(std::abs(v) == Approx(1000 / std::sqrt(448.0)).epsilon(1e-6));
}

TEST_CASE("rows of a view are transformed alike, whoever does it, and nothing beside them", "[transform]") {
    constexpr Index n = 60;
    constexpr Index rows = 3000;  // several tasks
    constexpr Index stride = n + 3;
    const std::vector<float> x = random_values<float>(rows * stride, 8);
    const HadamardTransform q(n, {.seed = 2});
    std::vector<float> together = x;
    q.apply(MatrixView<float>(together.data(), rows, n, stride));
    std::vector<float> alone = x;
    const Executor backwards(2, [](Index count, const Executor::Task& task) {
        while (count-- > 0) task(count);
    });
    q.apply(MatrixView<float>(alone.data(), rows, n, stride), backwards);
    CHECK(together == alone);
    int changed = 0;
    for (Index i = 0; i < rows; ++i) {
        for (Index j = n; j < stride; ++j)
            changed += together[std::size_t(i * stride + j)] != x[std::size_t(i * stride + j)];
    }
    CHECK(changed == 0);
}

TEST_CASE("random signs are the same everywhere", "[transform]") {
    const auto first = [](std::uint64_t seed) {
        std::string text;
        for (Index i = 0; i < 32; ++i) text += hadamard_sign(seed, i) > 0 ? '+' : '-';
        return text;
    };
    CHECK(first(0) == "+--+--+-++-+++--+---+------+++++");
    CHECK(first(1) == "-+-+-+--+++--+--+--++-+--++--++-");
    CHECK(first(~std::uint64_t(0)) == "++----+--+--+--++-+---++--+-+---");

    int sum = 0;
    const HadamardTransform q(1 << 16, {.seed = 7});
    for (const signed char s : q.signs()) sum += s;
    CHECK(std::abs(sum) < 1024);  // four standard deviations
    CHECK(HadamardTransform(64).signs().empty());
}

TEST_CASE("the explicit matrix of a power of two is Sylvester's", "[transform]") {
    const std::vector<double> h = hadamard_matrix(4);
    CHECK(h == std::vector<double>{0.5, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, -0.5,  //
                                   0.5, 0.5, -0.5, -0.5, 0.5, -0.5, -0.5, 0.5});
}

TEST_CASE("transforms refuse what they cannot do", "[transform]") {
    CHECK_THROWS_AS(HadamardTransform(0), std::invalid_argument);
    CHECK_THROWS_AS(HadamardTransform(64, {.block = 6}), std::invalid_argument);
    CHECK_THROWS_AS(HadamardTransform(64, {.block = 12}), std::invalid_argument);
    CHECK_THROWS_AS(HadamardTransform(64, {.inner = 5}), std::invalid_argument);
    CHECK_THROWS_AS(HadamardTransform(64, {.block = 64, .inner = 2}), std::invalid_argument);
    CHECK_THROWS_AS(residua::detail::hadamard::hadamard_base(16), std::invalid_argument);
    CHECK_THROWS_AS(hadamard_matrix(92), std::invalid_argument);
    std::vector<float> x(64);
    const HadamardTransform q(32);
    CHECK_THROWS_AS(q.apply(MatrixView<float>(x.data(), 1, 64)), std::invalid_argument);
    CHECK_THROWS_AS(q.apply_left(MatrixView<float>(x.data(), 64, 1)), std::invalid_argument);
    CHECK_THROWS_AS(q.apply_transpose(MatrixView<float>(nullptr, 1, 32)), std::invalid_argument);
    CHECK_THROWS_AS(q.entry(32, 0), std::invalid_argument);
    q.apply(MatrixView<float>(nullptr, 0, 32));
    q.apply_left(MatrixView<float>(x.data(), 32, 0));
}
