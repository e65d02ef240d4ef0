#pragma once

/// Every grid, and what makes one: Grid, TwoLevelGrid, GridParams, ClipSearch, ScaleSearch, ScaleType,
/// round_scale, resolve_group_size.

#include "residua/grids/codebook_grid.hpp"
#include "residua/grids/float_grid.hpp"
#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/grid.hpp"
#include "residua/grids/group_size.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/grids/k_quant_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "residua/grids/scale_search.hpp"
