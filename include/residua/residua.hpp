#pragma once

/// residua for the CPU: moments, the Eigen backend, grids, solvers and transforms. File formats (residua/io)
/// and the CUDA backend (residua/cuda) are included on their own.

#include "residua/backend/eigen.hpp"
#include "residua/core/integer_grid.hpp"
#include "residua/moments.hpp"
#include "residua/solver/round_to_nearest.hpp"
#include "residua/solver/solver.hpp"
#include "residua/transform/activation_quantizer.hpp"
#include "residua/transform/hadamard.hpp"
#include "residua/version.hpp"
