#pragma once

#include <residua/residua.hpp>

#include "layer.hpp"

/// What the GPU found, as the CPU has it.
template <class G>
struct CudaResult {
    residua::QuantizedMatrix<float, residua::EigenBackend, G> quantized = {};
    double accumulate_seconds = 0;
};

/// Moments of the first `calibration` tokens and a solve, both on the GPU.
template <class M, class G>
CudaResult<G> solve_on_cuda(const Layer& layer, residua::Index calibration,
                            const residua::SolverOptions& options, const M& method, const G& grid);

#ifndef RESIDUA_EXAMPLE_CUDA
template <class M, class G>
CudaResult<G> solve_on_cuda(const Layer&, residua::Index, const residua::SolverOptions&, const M&, const G&) {
    residua::reject("--device is", "cuda", "cpu: this program was built without RESIDUA_CUDA");
}
#endif
