#include <residua/cuda.hpp>

#include "backend_solver.hpp"

std::unique_ptr<LayerSolver> make_cuda_solver(const SolveSettings& settings) {
    return std::make_unique<BackendSolver<residua::CudaBackend>>(settings);
}
