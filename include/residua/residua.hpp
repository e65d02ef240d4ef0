#pragma once

/// residua for the CPU: moments, the Eigen backend, grids, solvers and transforms. The CUDA backend
/// (residua/cuda.hpp) and file formats (residua/io.hpp) are included on their own.

#include "residua/backends/eigen.hpp"
#include "residua/core/version.hpp"
#include "residua/grids/grids.hpp"
#include "residua/solver/solver.hpp"
#include "residua/solver/workspace.hpp"
#include "residua/transform/activation_quantizer.hpp"
#include "residua/transform/hadamard.hpp"
