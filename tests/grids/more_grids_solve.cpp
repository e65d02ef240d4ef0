#include "catch.hpp"
#include "residua/grids/codebook_grid.hpp"
#include "residua/grids/float_grid.hpp"
#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

/// GPTQ beats rounding on any grid, by a margin, and every code is below levels().
template <class G>
void check(const char* name, const G& grid, Index group_size = SolverOptions::grid_default) {
    static const Layer layer = random_layer({.out = 48, .in = 128, .tokens = 512});
    static const auto moments = moments_of<EigenFloat>(layer, Inputs::Quantized);
    SolverOptions options = reporting();
    options.group_size = group_size;
    const ClipSearch by_norm{.enabled = true};
    const ClipSearch by_loss{.enabled = true, .search = ScaleSearch::Loss};
    for (const ClipSearch& clip : {ClipSearch{}, by_norm, by_loss}) {
        G fitted = grid;
        fitted.clip = clip;
        CAPTURE(name, clip.enabled, int(clip.search));
        const auto solved =
            quantize<EigenFloat>(SolverOf<GPTQ, EigenFloat>(moments, options), layer.w, fitted);
        REQUIRE(solved);
        CHECK(solved.report.objective->symmetric < 0.8 * solved.report.round_to_nearest->symmetric);
        for (const int code : solved.codes) REQUIRE(code < grid.levels());
    }
}

}  // namespace

TEST_CASE("GPTQ beats rounding on every grid", "[grids][solver]") {
    check("fp4", FP4Grid{.scale_type = ScaleType::Float16}, 32);
    check("fp8", FP8Grid{}, SolverOptions::per_channel);
    check("mxfp4", MXFP4Grid{});
    check("nvfp4", NVFP4Grid::for_absmax(0.5));
    check("nf4", NF4Grid{}, 64);
    check("codebook", CodebookGrid<5>{.values = {-1, -0.4f, 0, 0.4f, 1}}, 32);
    check("q4_0", Q4_0Grid{});
    check("q4_1", Q4_1Grid{});
    check("q5_0", Q5_0Grid{});
    check("q5_1", Q5_1Grid{});
    check("q8_0", Q8_0Grid{});
}

namespace {

template <class G>
void check_group_size(const char* name, const G& grid, Index own) {
    static const Layer layer = random_layer({.out = 4, .in = 96, .tokens = 128});
    static const auto moments = moments_of<EigenFloat>(layer, Inputs::Quantized);
    const auto w = upload<EigenFloat>(layer.w);
    const auto solve = [&](Index group_size, Ordering ordering = Ordering::Natural) {
        SolverOptions options;
        options.group_size = group_size;
        options.ordering = ordering;
        return SolverOf<GPTQ, EigenFloat>(moments, options).quantize(w.view(), grid);
    };
    const auto round = [&](Index group_size) {
        return round_weights<float>(EigenFloat::get(), w.view(), grid, group_size);
    };
    CAPTURE(name);
    CHECK(resolve_group_size<G>(SolverOptions::grid_default) == own);
    CHECK(resolve_group_size<G>(own) == own);
    const Index groups = (layer.n + own - 1) / own;
    CHECK(solve(SolverOptions::grid_default).scales.cols() == groups);
    CHECK(solve(own).scales.cols() == groups);
    CHECK(round(SolverOptions::grid_default).scales.cols() == groups);
    CHECK(round_weights<float>(EigenFloat::get(), w.view(), grid).scales.cols() == groups);
    // the order of columns depends on the group size as well
    const auto aware = [&](Index group_size) {
        return EigenFloat::get().read(solve(group_size, Ordering::GroupAware).codes.view());
    };
    CHECK(aware(SolverOptions::grid_default) == aware(own));
    if constexpr (FixedGroupGrid<G>) {
        for (const Index other : {own / 2, 2 * own, Index(128), Index(7), SolverOptions::per_channel}) {
            const std::string message = "residua: SolverOptions: group_size is " + std::to_string(other) +
                                        ", expected " + std::to_string(own) +
                                        ", the only size that this grid has";
            CHECK(contains(message_of([&] { solve(other); }), message));
            CHECK(contains(message_of([&] { round(other); }), message));
        }
    } else {
        CHECK(solve(24).scales.cols() == 4);
        CHECK(round(24).scales.cols() == 4);
        CHECK(round(SolverOptions::per_channel).scales.cols() == 1);
    }
}

}  // namespace

TEST_CASE("A grid with groups of its own size takes them by default and refuses others", "[grids][solver]") {
    check_group_size("integer", IntegerGrid{}, 128);
    check_group_size("fp4", FP4Grid{}, 128);
    check_group_size("fp8", FP8Grid{}, 128);
    check_group_size("nf4", NF4Grid{}, 128);
    check_group_size("codebook", CodebookGrid<3>{.values = {-1, 0, 1}}, 128);
    check_group_size("mxfp4", MXFP4Grid{}, 32);
    check_group_size("nvfp4", NVFP4Grid::for_absmax(0.5), 16);
    check_group_size("q4_0", Q4_0Grid{}, 32);
    check_group_size("q4_1", Q4_1Grid{}, 32);
    check_group_size("q5_0", Q5_0Grid{}, 32);
    check_group_size("q5_1", Q5_1Grid{}, 32);
    check_group_size("q8_0", Q8_0Grid{}, 32);
}
