#pragma once

/// residua on NVIDIA GPUs: the CUDA backend and the solvers. To be compiled by nvcc (C++20,
/// --expt-relaxed-constexpr) and linked with cuBLAS and cuSOLVER.

#include "residua/core/integer_grid.hpp"
#include "residua/cuda/backend.hpp"
#include "residua/cuda/hadamard.hpp"
#include "residua/cuda/workspace.hpp"
