#pragma once

/// residua on NVIDIA GPUs: the CUDA backend, and moments, grids, methods, solvers and transforms as residua.hpp
/// names them, without Eigen. To be compiled by nvcc (C++20, --expt-relaxed-constexpr) and linked with cuBLAS and
/// cuSOLVER.
///
/// What is neither named here nor there is in residua::detail and may change.
///
///     backends/cuda/backend.hpp    CudaBackend
///     backends/cuda/context.hpp    CudaContext, CudaOptions, Precision
///     backends/cuda/memory.hpp     DeviceMatrix, DeviceMemory, DeviceAllocator, PoolAllocator
///     backends/cuda/error.hpp      DeviceError, DeviceMemoryError
///     backends/cuda/pack.hpp       cuda_pack_rows_transposed
///     transform/cuda/hadamard.hpp  CudaHadamard

#include "residua/backends/cuda/backend.hpp"
#include "residua/backends/cuda/pack.hpp"
#include "residua/core/version.hpp"
#include "residua/grids/grids.hpp"
#include "residua/solver/solver.hpp"
#include "residua/solver/workspace.hpp"
#include "residua/transform/activation_quantizer.hpp"
#include "residua/transform/cuda/hadamard.hpp"
#include "residua/transform/hadamard.hpp"
