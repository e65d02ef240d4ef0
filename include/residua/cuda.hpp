#pragma once

/// residua on NVIDIA GPUs: the CUDA backend and the solvers. To be compiled by nvcc (C++20,
/// --expt-relaxed-constexpr) and linked with cuBLAS and cuSOLVER.

#include "residua/backends/cuda/backend.hpp"
#include "residua/backends/cuda/pack.hpp"
#include "residua/core/version.hpp"
#include "residua/grids/grids.hpp"
#include "residua/solver/solver.hpp"
#include "residua/solver/workspace.hpp"
#include "residua/transform/activation_quantizer.hpp"
#include "residua/transform/cuda/hadamard.hpp"
#include "residua/transform/hadamard.hpp"
