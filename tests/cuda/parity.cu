// The GPU quantizes as the CPU does.

#include "catch.hpp"
#include "cuda/backends.hpp"
#include "residua/io/safetensors/file.hpp"
#include "support/layer.hpp"

namespace {

using namespace residua;
using namespace residua::test;

/// Codes at a tie flip where sums are rounded in another order, and with them the rest of their row: layers have
/// rows enough for that to average out. A clip search may choose between candidates of the same error, which only
/// rounding tells apart.
template <class Method>
void check_parity(const Layer& layer, const SolverOptions& options, const IntegerGrid& grid) {
    const double tolerance = grid.clip.enabled ? 5e-3 : 1e-4;
    const Solved cpu = solve<Method, EigenFloat>(layer, options, grid);
    const Solved gpu = solve<Method, CudaFloat>(layer, options, grid);
    CAPTURE(Method::name, layer.m, layer.n, options.group_size, options.block_size, grid.clip.enabled);
    REQUIRE(cpu);
    REQUIRE(gpu);
    CHECK(double(differences(cpu.codes, gpu.codes)) <= 1e-3 * double(cpu.codes.size()));
    CHECK(gpu.report.objective->symmetric == Approx(cpu.report.objective->symmetric).epsilon(tolerance));
    CHECK(*gpu.report.objective->asymmetric == Approx(*cpu.report.objective->asymmetric).epsilon(tolerance));
    CHECK(gpu.group_index == cpu.group_index);
}

const Layer& ragged_layer() {
    static const Layer layer = random_layer({.out = 1997, .in = 410, .tokens = 1600, .dead = {3, 200}});
    return layer;
}

const Layer& even_layer() {
    static const Layer layer = random_layer({.out = 2048, .in = 512, .tokens = 1600});
    return layer;
}

/// Shapes with ragged ends, groups across blocks, tiles that do and do not fit in shared memory.
template <class Method>
void check_all() {
    const IntegerGrid plain{.bits = 4};
    const IntegerGrid symmetric{.bits = 3, .symmetry = Symmetry::Restricted};
    IntegerGrid clipped{.bits = 3};
    clipped.clip.enabled = true;
    const Layer& ragged = ragged_layer();
    const Layer& even = even_layer();

    SolverOptions options = reporting();
    check_parity<Method>(ragged, options, plain);
    check_parity<Method>(even, options, plain);
    check_parity<Method>(ragged, options, symmetric);
    check_parity<Method>(ragged, options, clipped);
    options.ordering = Ordering::Activation;
    check_parity<Method>(ragged, options, plain);
    options.static_groups = true;
    options.group_size = 32;
    check_parity<Method>(ragged, options, clipped);
    options.ordering = Ordering::GroupAware;
    options.static_groups = false;
    options.group_size = 50;
    check_parity<Method>(ragged, options, plain);
    options.ordering = Ordering::Natural;
    options.group_size = 200;
    options.block_size = 96;
    check_parity<Method>(ragged, options, plain);
    options.group_size = SolverOptions::per_channel;
    check_parity<Method>(ragged, options, plain);
    options.group_size = 7;
    options.block_size = 1000;
    check_parity<Method>(ragged, options, plain);
    options.group_size = 64;
    options.block_size = 128;
    for (const auto view : {ResidualView::Quantized, ResidualView::Clamped}) {
        options.published.view = view;
        options.published.scales = GroupScales::Stale;
        check_parity<Method>(ragged, options, plain);
    }
}

}  // namespace

TEST_CASE("QEP is best on the shipped layer", "[cuda][parity]") {
    const io::SafetensorsFile file(std::string(RESIDUA_EXAMPLE_DATA_DIR) + "/layer.safetensors");
    const auto matrix = [&](const std::string& name) {
        const auto& shape = file.info(name).shape;
        return reference::Matrix(shape.at(0), shape.at(1), file.read<double>(name));
    };
    Layer layer{0, 0, 0, matrix("weight"), matrix("x"), matrix("x_fp")};
    layer.m = layer.w.rows;
    layer.n = layer.w.cols;
    layer.tokens = layer.x.rows;
    const IntegerGrid grid{.bits = 3, .symmetry = Symmetry::Restricted};
    const auto objective = [&]<class Method>(Method) {
        return *solve<Method, CudaFloat>(layer, reporting(), grid).report.objective->asymmetric;
    };
    const double qep = objective(QEP{});
    CHECK(qep < objective(GPTQ{}));
    CHECK(qep < objective(GPTAQ{}));
    CHECK(qep < objective(ResidualComp{}));
}

TEMPLATE_TEST_CASE("CPU and GPU agree", "[cuda][parity]", GPTQ, GPTAQ, ResidualComp, GPTQResidualComp, QEP) {
    check_all<TestType>();
}
