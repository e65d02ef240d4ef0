#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

TEMPLATE_TEST_CASE("a result is copied to the host", "[result]", RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    Layer layer = random_layer({.out = 5, .in = 40, .tokens = 90});
    const auto moments = moments_of<TestType>(layer);
    const SolverOf<GPTAQ, TestType> solver(moments, {.group_size = 16});
    const auto q = solver.quantize(upload<TestType>(layer.w).view(), IntegerGrid{.bits = 3});

    const QuantizedLayer<IntegerGrid, T> host = q.to_host(backend);
    host.validate();
    CHECK(host.rows == 5);
    CHECK(host.cols == 40);
    CHECK(host.groups == 3);
    CHECK(host.grid.bits == 3);
    CHECK(host.codes == backend.read(q.codes.view()));
    CHECK(host.scales == backend.read(q.scales.view()));
    CHECK(host.zeros == backend.read(q.zeros.view()));
    CHECK(host.group_index == q.group_index);
    CHECK(host.grouping().size == 16);
    CHECK(host.grouping().is_sequential);

    // Scales are rounded to float in the fit, so that a file of floats holds the result of a solve in double.
    const QuantizedLayer<IntegerGrid> floats = q.template to_host<float>(backend);
    CHECK(std::equal(floats.scales.begin(), floats.scales.end(), host.scales.begin(), host.scales.end()));

    const Matrix<T> values = q.dequantize(backend);
    const T expected = host.scales[2] * (T(host.codes[39]) - host.zeros[2]);
    CHECK(values(0, 39) == expected);

    layer.w(1, 1) = std::numeric_limits<double>::quiet_NaN();
    const auto failed = solver.quantize(upload<TestType>(layer.w).view(), IntegerGrid{.bits = 3});
    CHECK(contains(message_of<std::logic_error>([&] { (void)failed.to_host(backend); }),
                   "there are no codes, for the solve ended with non-finite weights"));
}

TEST_CASE("a layer on the host says what does not fit together", "[result]") {
    using Host = QuantizedLayer<IntegerGrid>;
    const Host good = Host::of_shape(2, 10, 4);
    CHECK(good.groups == 3);
    CHECK(good.group_index == std::vector<std::int32_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2});
    CHECK_NOTHROW(good.validate());
    CHECK(Host::of_shape(1, 3, 128).groups == 1);
    CHECK(contains(message_of([] { (void)Host::of_shape(1, 0, 4); }), "cols is 0, expected at least 1"));

    Host layer = good;
    layer.codes.pop_back();
    CHECK(contains(message_of([&] { layer.validate(); }), "codes has 19 elements, expected 20"));
    layer = good;
    layer.group_index[0] = 3;
    CHECK(contains(message_of([&] { layer.validate(); }), "group_index holds 3, expected 0 to 2"));
    layer = good;
    std::swap(layer.group_index[0], layer.group_index[4]);
    CHECK_FALSE(layer.grouping().is_sequential);
    layer.group_index[5] = 0;
    CHECK(contains(message_of([&] { (void)layer.grouping(); }),
                   "group 1 has 3 columns, expected 5, as group 0 has"));
}
