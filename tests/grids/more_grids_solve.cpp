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
void check(const char* name, const G& grid, Index group_size) {
    static const Layer layer = random_layer({.out = 48, .in = 128, .tokens = 512});
    static const auto moments = moments_of<EigenFloat>(layer, Inputs::Quantized);
    SolverOptions options;
    options.group_size = group_size;
    for (const bool clip : {false, true}) {
        G fitted = grid;
        fitted.clip.enabled = clip;
        CAPTURE(name, clip);
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
    check("mxfp4", MXFP4Grid{}, 32);
    check("nvfp4", NVFP4Grid::for_absmax(0.5), 16);
    check("nf4", NF4Grid{}, 64);
    check("codebook", CodebookGrid<5>{.values = {-1, -0.4f, 0, 0.4f, 1}}, 32);
    check("q4_0", Q4_0Grid{}, 32);
    check("q4_1", Q4_1Grid{}, 32);
    check("q5_0", Q5_0Grid{}, 32);
    check("q5_1", Q5_1Grid{}, 32);
    check("q8_0", Q8_0Grid{}, 32);
}
