// The GPU quantizes as the CPU does.

#include "catch.hpp"
#include "cuda/backends.hpp"
#include "residua/io/safetensors/file.hpp"
#include "support/layer.hpp"

namespace {

using namespace residua;
using namespace residua::test;

/// Rows in which the CPU and the GPU found the same codes; where a sum lies at a tie, its rounding decides, and the
/// rest of the row follows.
std::vector<bool> agreeing_rows(const Layer& layer, const Solved& cpu, const Solved& gpu) {
    std::vector<bool> agree;
    for (Index r = 0; r < layer.m; ++r) {
        const auto first = cpu.codes.begin() + r * layer.n;
        agree.push_back(std::equal(first, first + layer.n, gpu.codes.begin() + r * layer.n));
    }
    return agree;
}

/// Objectives of the given rows on some of the tokens.
Objective objective_of(const Layer& layer, const Solved& solved, const std::vector<bool>& rows) {
    constexpr Index tokens = 100;
    reference::Matrix w = layer.w;
    reference::Matrix q = solved.dequantized;
    for (Index r = 0; r < layer.m; ++r) {
        for (Index j = 0; j < layer.n && !rows[std::size_t(r)]; ++j) w(r, j) = q(r, j) = 0;
    }
    const auto some = [&](const reference::Matrix& x) {
        return reference::Matrix(tokens, layer.n, {x.data.begin(), x.data.begin() + tokens * layer.n});
    };
    return {reference::symmetric_objective(w, q, some(layer.x)),
            reference::asymmetric_objective(w, q, some(layer.x), some(layer.x_fp))};
}

/// A clip search may choose between candidates of the same error, which only rounding tells apart.
template <class Method>
void check_parity(const Layer& layer, const SolverOptions& options, const IntegerGrid& grid) {
    const double tolerance = grid.clip.enabled ? 5e-3 : 1e-4;
    const Solved cpu = solve<Method, EigenFloat>(layer, options, grid);
    const Solved gpu = solve<Method, CudaFloat>(layer, options, grid);
    CAPTURE(Method::name, layer.m, layer.n, options.group_size, options.block_size, grid.clip.enabled);
    REQUIRE(cpu);
    REQUIRE(gpu);
    CHECK(gpu.group_index == cpu.group_index);
    CHECK(double(differences(cpu.codes, gpu.codes)) <= 1e-3 * double(cpu.codes.size()));
    const std::vector<bool> rows = agreeing_rows(layer, cpu, gpu);
    CHECK(double(std::count(rows.begin(), rows.end(), true)) >= 0.75 * double(layer.m));
    const Objective expected = objective_of(layer, cpu, rows);
    const Objective objective = objective_of(layer, gpu, rows);
    CHECK(objective.symmetric == Approx(expected.symmetric).epsilon(tolerance));
    CHECK(*objective.asymmetric == Approx(*expected.asymmetric).epsilon(tolerance));
    // one row at a tie is a hundredth of all, and may come out better or worse by as much as its rounding
    CHECK(gpu.report.objective->symmetric == Approx(cpu.report.objective->symmetric).epsilon(5e-3));
}

const Layer& ragged_layer() {
    static const Layer layer = random_layer({.out = 97, .in = 410, .tokens = 1600, .dead = {3, 200}});
    return layer;
}

const Layer& even_layer() {
    static const Layer layer = random_layer({.out = 160, .in = 512, .tokens = 1600});
    return layer;
}

/// Shapes with ragged ends, groups across blocks, tiles that do and do not fit in shared memory.
template <class Method>
void check_all() {
    const IntegerGrid plain{.bits = 4};
    const IntegerGrid symmetric{.bits = 3, .symmetry = Symmetry::Restricted};
    IntegerGrid clipped{.bits = 3};
    clipped.clip.enabled = true;
    IntegerGrid by_loss = clipped;
    by_loss.clip.search = ScaleSearch::Loss;
    IntegerGrid symmetric_by_loss = symmetric;
    symmetric_by_loss.clip = {.enabled = true, .search = ScaleSearch::Loss, .survivors = 20};
    const Layer& ragged = ragged_layer();
    const Layer& even = even_layer();

    SolverOptions options = reporting();
    check_parity<Method>(ragged, options, plain);
    check_parity<Method>(even, options, plain);
    check_parity<Method>(ragged, options, symmetric);
    check_parity<Method>(ragged, options, clipped);
    check_parity<Method>(even, options, by_loss);
    check_parity<Method>(ragged, options, symmetric_by_loss);
    options.ordering = Ordering::Activation;
    check_parity<Method>(ragged, options, plain);
    check_parity<Method>(ragged, options, by_loss);
    options.static_groups = true;
    options.group_size = 32;
    check_parity<Method>(ragged, options, clipped);
    check_parity<Method>(ragged, options, by_loss);
    options.ordering = Ordering::GroupAware;
    options.static_groups = false;
    options.group_size = 50;
    check_parity<Method>(ragged, options, plain);
    check_parity<Method>(ragged, options, by_loss);
    options.ordering = Ordering::Natural;
    options.group_size = 200;
    options.block_size = 96;
    check_parity<Method>(ragged, options, plain);
    check_parity<Method>(ragged, options, symmetric_by_loss);
    options.group_size = SolverOptions::per_channel;
    check_parity<Method>(ragged, options, plain);
    options.group_size = 7;
    options.block_size = 1000;
    check_parity<Method>(ragged, options, plain);
    options.group_size = 130;
    check_parity<Method>(ragged, options, by_loss);
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
