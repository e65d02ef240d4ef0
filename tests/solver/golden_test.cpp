// Parity with the published Python code of GPTQ, GPTAQ and ResComp (float32, PyTorch), on one layer with two
// dead input columns: tests/data/official.safetensors.

#include "support/golden.hpp"
#include "catch.hpp"
#include "support/backends.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// A weight counts as equal within 1e-5 of its scale: float32 scales differ in their last bits.
constexpr double equal_within = 1e-5;
// Rounding of float32 moves single codes across a tie, and then what is compensated for them: the rest of the
// row.
constexpr double least_golden_agreement = 0.995;
constexpr double error_within = 0.002;

/// Whether a row's asymmetric zero lies on a tie: its range is [-a, a] to the last bit, so that -min / scale
/// is half an odd number, and only the rounding of scale and quotient decides. float repeats the published
/// code's decision.
bool zero_is_a_tie(const GoldenCase& golden, const reference::Matrix& w, Index row) {
    if (golden.grid().symmetry != Symmetry::None || golden.options().group_size > 0) return false;
    const auto first = w.data.begin() + row * w.cols;
    const auto [low, high] = std::minmax_element(first, first + w.cols);
    return -*low == *high;
}

template <class Tag>
Solved solve_case(const GoldenCase& golden, const Layer& layer) {
    const SolverOptions options = golden.options();
    if (golden.method() == "gptq") return solve<GPTQ, Tag>(layer, options, golden.grid());
    if (golden.method() == "gptaq")
        return solve<GPTAQ, Tag>(layer, options, golden.grid(), GPTAQ{golden.alpha()});
    REQUIRE(golden.method() == "rescomp");
    return solve<ResidualComp, Tag>(layer, options, golden.grid(), ResidualComp{golden.alpha(), 0.25});
}

}  // namespace

TEMPLATE_TEST_CASE("The published code's results are reproduced", "[solver][golden]", RESIDUA_TEST_BACKENDS) {
    const Golden golden = read_golden();
    REQUIRE(golden.cases.size() == 17);
    const Layer& layer = golden.layer;
    for (const GoldenCase& expected : golden.cases) {
        const Solved solved = solve_case<TestType>(expected, layer);
        REQUIRE(solved.status == Status::Success);
        CHECK(solved.report.dead_columns.size() == 2);

        Index agree = 0;
        Index compared = 0;
        for (Index r = 0; r < layer.m; ++r) {
            const bool is_float = std::is_same_v<typename TestType::Scalar, float>;
            if (!is_float && zero_is_a_tie(expected, layer.w, r)) continue;
            compared += layer.n;
            for (Index j = 0; j < layer.n; ++j) {
                const Index group = solved.group_index[static_cast<std::size_t>(j)];
                const double scale = solved.scales[static_cast<std::size_t>(r * solved.groups + group)];
                agree +=
                    std::abs(solved.dequantized(r, j) - expected.dequantized(r, j)) <= equal_within * scale;
            }
        }
        const double agreement = double(agree) / double(compared);
        CHECK(compared >= (layer.m - 1) * layer.n);
        const double error =
            reference::relative_output_error(layer.w, solved.dequantized, layer.x, layer.x_fp);
        INFO(expected.name << ": " << 100 * agreement << " % of the weights agree, relative output error "
                           << error << ", published " << expected.relative_output_error());
        CHECK(agreement >= least_golden_agreement);
        CHECK(std::abs(error / expected.relative_output_error() - 1) <= error_within);
    }
}
