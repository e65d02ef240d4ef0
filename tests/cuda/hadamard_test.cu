// The Hadamard transform on the device against the one on the host in double.

#include "catch.hpp"
#include "residua/transform/cuda/hadamard.hpp"
#include "support/random.hpp"

using namespace residua;
using residua::test::Random;

namespace {

// Relative to the largest value. The result is rounded to T; sums in float are far more accurate than the
// others.
template <class T>
constexpr double within = std::is_same_v<T, float>     ? 2e-6
                          : std::is_same_v<T, float16> ? 1e-3
                                                       : 8e-3;

/// Rows of x Q (or x Q^T) on both sides; `gap` elements lie between rows. Returns the largest deviation over
/// the largest value, or a huge number if something between rows was written.
template <class T>
double deviation(Index rows, Index n, HadamardOptions options, bool transposed, Index gap,
                 bool in_place = false) {
    const HadamardTransform transform(n, options);
    const Index stride = n + gap;
    Random random(static_cast<std::uint64_t>(n));
    std::vector<T> x(static_cast<std::size_t>(rows * stride));
    for (T& v : x) v = T(static_cast<float>(random.normal()));
    std::vector<double> expected(x.begin(), x.end());
    const MatrixView<double> whole(expected.data(), rows, n, stride);
    transposed ? transform.apply_transpose(whole) : transform.apply(whole);

    CudaContext context;
    const residua::CudaHadamard hadamard(context, transform);
    auto from = context.allocate<T>(rows, stride);
    auto to = context.allocate<T>(rows, stride);
    context.write(x, from.view());
    context.write(x, to.view());  // between rows stays as it is
    const MatrixView<T> target((in_place ? from : to).view().data, rows, n, stride);
    const MatrixView<const T> source(from.view().data, rows, n, stride);
    transposed ? hadamard.apply_transpose(source, target) : hadamard.apply(source, target);
    const std::vector<T> found = context.read((in_place ? from : to).view());

    double worst = 0;
    double largest = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
        const double difference = std::abs(double(float(found[i])) - expected[i]);
        largest = std::max(largest, std::abs(expected[i]));
        if (!(difference <= worst)) worst = std::isnan(difference) ? 1e300 : difference;
    }
    return worst / largest;
}

}  // namespace

TEMPLATE_TEST_CASE("Hadamard transforms on the device are those on the host", "[cuda]", float, float16,
                   bfloat16) {
    for (const Index n : {1,     2,     32,    64,    128,   256,   512,  1024, 2048, 4096, 8192, 16384,
                          32768, 12,    24,    96,    448,   560,   1152, 1760, 4864, 5120, 6912, 9216,
                          11008, 13824, 14336, 18944, 28672, 53248, 156,  172,  344,  92,   736,  29568}) {
        for (const bool transposed : {false, true}) {
            CAPTURE(n, transposed);
            CHECK(deviation<TestType>(3, n, {.seed = 3}, transposed, 0) < within<TestType>);
        }
    }
}

TEMPLATE_TEST_CASE("small Hadamard transforms on the device", "[cuda][sanitize]", float, bfloat16) {
    for (const bool transposed : {false, true}) {
        CAPTURE(transposed);
        CHECK(deviation<TestType>(3, 1024, {.seed = 1}, transposed, 0) < within<TestType>);
        CHECK(deviation<TestType>(3, 1024, {}, transposed, 1) < within<TestType>);
        CHECK(deviation<TestType>(2, 4096, {.block = 128, .seed = 1}, transposed, 0, true) <
              within<TestType>);
        CHECK(deviation<TestType>(2, 4096, {.block = 32, .inner = 128}, transposed, 2) < within<TestType>);
        CHECK(deviation<TestType>(2, 240, {.block = 12, .inner = 4, .seed = 2}, transposed, 0) <
              within<TestType>);
        CHECK(deviation<TestType>(2, 896, {.seed = 2}, transposed, 4, true) < within<TestType>);
        CHECK(deviation<TestType>(2, 640, {.seed = 2}, transposed, 0) < within<TestType>);
        CHECK(deviation<TestType>(2, 1152, {.seed = 2}, transposed, 0) < within<TestType>);
        CHECK(deviation<TestType>(2, 688, {.seed = 2}, transposed, 0, true) < within<TestType>);
        CHECK(deviation<TestType>(2, 172, {.seed = 2}, transposed, 0, true) < within<TestType>);
        CHECK(deviation<TestType>(1, 6656, {.seed = 2}, transposed, 0, true) < within<TestType>);
    }
}

TEST_CASE("Hadamard transforms on the device refuse what they cannot do", "[cuda]") {
    CudaContext context;
    CHECK_THROWS_AS(residua::CudaHadamard(context, HadamardTransform(1 << 17)), std::invalid_argument);
    CHECK_THROWS_AS(residua::CudaHadamard(context, HadamardTransform(12, {.block = 4, .inner = 3})),
                    std::invalid_argument);
    const residua::CudaHadamard hadamard(context, HadamardTransform(64));
    CHECK_THROWS_AS(
        hadamard.apply(MatrixView<const float>(nullptr, 2, 32), MatrixView<float>(nullptr, 2, 32)),
        std::invalid_argument);
    CHECK_THROWS_AS(
        hadamard.apply(MatrixView<const float>(nullptr, 2, 64), MatrixView<float>(nullptr, 2, 64)),
        std::invalid_argument);
    hadamard.apply(MatrixView<const float>(nullptr, 0, 64), MatrixView<float>(nullptr, 0, 64));
}
