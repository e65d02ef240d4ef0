#include "residua/core/ordering.hpp"

#include "catch.hpp"
#include "residua/core/matrix.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;
using Order = std::vector<Index>;

namespace {

Order order_of(const std::vector<double>& diagonal, Ordering ordering, Index group_size) {
    return detail::column_order(std::span<const double>(diagonal), ordering, group_size);
}

SolverOptions options_of(Ordering ordering, Index group_size, bool static_groups = false) {
    SolverOptions options;
    options.ordering = ordering;
    options.group_size = group_size;
    options.static_groups = static_groups;
    return options;
}

using Groups = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("Columns are ordered as asked, ties as they were", "[core][ordering]") {
    const std::vector<double> diagonal = {1, 5, 2, 2, 9, 0, 2};
    CHECK(order_of(diagonal, Ordering::Natural, 3) == Order{0, 1, 2, 3, 4, 5, 6});
    CHECK(order_of(diagonal, Ordering::Activation, 3) == Order{4, 1, 2, 3, 6, 0, 5});
    // groups {1 5 2} {2 9 0} {2} have means 8/3, 11/3 and 2
    CHECK(order_of(diagonal, Ordering::GroupAware, 3) == Order{4, 3, 5, 1, 2, 0, 6});
    CHECK(order_of(diagonal, Ordering::GroupAware, SolverOptions::per_channel) ==
          order_of(diagonal, Ordering::Activation, SolverOptions::per_channel));
    CHECK(order_of(diagonal, Ordering::GroupAware, 100) == order_of(diagonal, Ordering::Activation, 100));
    CHECK(order_of({4.0}, Ordering::GroupAware, 1) == Order{0});
    CHECK(order_of({1, 1, 1, 2}, Ordering::GroupAware, 3) == Order{3, 0, 1, 2});  // by mean, not by sum
}

TEST_CASE("Groups of the original order", "[core][ordering]") {
    const Order order = detail::natural_order(7);
    const detail::GroupLayout layout = detail::group_layout(order, options_of(Ordering::Natural, 3));
    CHECK(layout.count == 3);
    CHECK(layout.of_column == Groups{0, 0, 0, 1, 1, 1, 2});
    CHECK(layout.of_position == Order{0, 0, 0, 1, 1, 1, 2});
    CHECK(layout.members.empty());
    REQUIRE(layout.ranges.size() == 3);
    CHECK(layout.ranges[1].begin == 3);
    CHECK(layout.ranges[1].end == 6);
    CHECK(layout.ranges[2].begin == 6);
    CHECK(layout.ranges[2].end == 7);  // ragged
    CHECK(layout.ranges[2].id == 2);
}

TEST_CASE("Activation order groups what is quantized together, unless groups are static",
          "[core][ordering]") {
    const Order order = {4, 1, 2, 3, 0};
    const detail::GroupLayout moving = detail::group_layout(order, options_of(Ordering::Activation, 2));
    CHECK(moving.of_position == Order{0, 0, 1, 1, 2});
    CHECK(moving.of_column == Groups{2, 0, 1, 1, 0});
    CHECK(moving.ranges.size() == 3);

    const detail::GroupLayout fixed = detail::group_layout(order, options_of(Ordering::Activation, 2, true));
    CHECK(fixed.of_column == Groups{0, 0, 1, 1, 2});
    CHECK(fixed.of_position == Order{2, 0, 1, 1, 0});
    CHECK(fixed.ranges.empty());
    CHECK(fixed.members == std::vector<Order>{{1, 4}, {2, 3}, {0}});
}

TEST_CASE("Group-aware order quantizes whole groups, of the original order", "[core][ordering]") {
    const Order aware = {4, 3, 5, 1, 2, 0, 6};
    const detail::GroupLayout layout = detail::group_layout(aware, options_of(Ordering::GroupAware, 3));
    CHECK(layout.of_column == Groups{0, 0, 0, 1, 1, 1, 2});
    REQUIRE(layout.ranges.size() == 3);
    CHECK(layout.ranges[0].id == 1);
    CHECK(layout.ranges[1].id == 0);
    CHECK(layout.ranges[2].id == 2);
    CHECK(layout.ranges[0].end == 3);
}

TEST_CASE("One group per channel, and groups wider than the layer", "[core][ordering]") {
    const Order order = {2, 0, 1};
    const detail::GroupLayout channel =
        detail::group_layout(order, options_of(Ordering::Activation, SolverOptions::per_channel));
    CHECK(channel.count == 1);
    CHECK(channel.members == std::vector<Order>{{0, 1, 2}});
    const detail::GroupLayout wide = detail::group_layout(order, options_of(Ordering::Activation, 64));
    CHECK(wide.count == 1);
    CHECK(wide.of_column == Groups{0, 0, 0});
    CHECK(wide.ranges.size() == 1);
    CHECK(wide.ranges[0].end == 3);
}

TEST_CASE("A group size that is left to the grid makes no groups before the grid is known",
          "[core][ordering]") {
    const std::string expected = "group_size is grid_default, expected the size that it stands for";
    const Index unknown = SolverOptions::grid_default;
    CHECK(contains(message_of([&] { (void)order_of({1, 2}, Ordering::GroupAware, unknown); }), expected));
    CHECK(order_of({1, 2}, Ordering::Activation, unknown) == Order{1, 0});
    const SolverOptions options = options_of(Ordering::Natural, unknown);
    CHECK(contains(message_of([&] { (void)detail::group_layout(Order{0, 1}, options); }), expected));
}

TEST_CASE("Unusable options are refused", "[core][options]") {
    const auto refusal = [](auto change) {
        SolverOptions options;
        change(options);
        return message_of([&] { options.validate(); });
    };
    CHECK(refusal([](SolverOptions&) {}).empty());
    CHECK(
        refusal([](SolverOptions& o) { o.group_size = -2; }) ==
        "residua: SolverOptions: group_size is -2, expected at least 1, 0 for the grid's own, or -1 for one "
        "scale per output channel");
    CHECK(contains(refusal([](SolverOptions& o) { o.block_size = 0; }),
                   "block_size is 0, expected at least 1"));
    CHECK(contains(refusal([](SolverOptions& o) { o.damping.initial = -1; }),
                   "initial is -1, expected a number in [0, 1e6]"));
    CHECK(contains(refusal([](SolverOptions& o) { o.damping.initial = std::nan(""); }), "initial is nan"));
    CHECK(contains(refusal([](SolverOptions& o) { o.damping.growth = 1; }),
                   "growth is 1, expected a number in (1, 1e6]"));
    CHECK(contains(refusal([](SolverOptions& o) { o.damping.retry_from = 0; }), "retry_from is 0"));
    CHECK(contains(refusal([](SolverOptions& o) { o.damping.max_retries = -1; }), "max_retries is -1"));
}

TEST_CASE("Damping grows from its first retry", "[core][options]") {
    const Damping damping;
    CHECK(damping.next(0) == damping.retry_from);
    CHECK(damping.next(0.01) == Approx(0.1));
    CHECK(Damping{.initial = 0, .growth = 3, .retry_from = 2, .max_retries = 1}.next(0.1) == 2);
}

TEST_CASE("Views address what they say", "[core][view]") {
    std::vector<int> values(20);
    for (int i = 0; i < 20; ++i) values[std::size_t(i)] = i;
    const MatrixView<int> view(values.data(), 3, 4, 6);  // two columns of padding
    CHECK(view(2, 3) == 15);
    CHECK(view.row(1)[2] == 8);
    const MatrixView<const int> constant = view;
    const auto block = constant.block(1, 1, 2, 2);
    CHECK(block(0, 0) == 7);
    CHECK(block(1, 1) == 14);
    CHECK(block.rows == 2);
    CHECK(block.cols == 2);
    CHECK(block.stride == 6);
    CHECK(constant.row_range(2, 1)(0, 3) == 15);
    CHECK(MatrixView<int>(values.data(), 4, 5).stride == 5);
}

TEST_CASE("Matrices own aligned memory", "[core][view]") {
    Matrix<float> matrix(3, 5);
    CHECK(reinterpret_cast<std::uintptr_t>(matrix.data()) % 64 == 0);
    matrix(2, 4) = 7;
    const float* data = matrix.data();
    const Matrix<float> moved = std::move(matrix);
    CHECK(moved.data() == data);
    CHECK(moved(2, 4) == 7);
    CHECK(moved.size() == 15);
    CHECK(Matrix<double>(0, 5).data() == nullptr);
    CHECK(contains(message_of([] { Matrix<float>(-1, 2); }), "rows is -1, expected at least 0"));
}

TEST_CASE("Statuses have names", "[core]") {
    CHECK(to_string(Status::Success) == "success");
    CHECK(to_string(Status::NotPositiveDefinite) == "not positive definite");
    CHECK(to_string(Status::Cancelled) == "cancelled");
}
