#include <residua/cuda.hpp>

#include "backend_solver.hpp"

std::unique_ptr<LayerSolver> make_cuda_solver(const SolveSettings& settings, Ranks& ranks,
                                              const Cooperation& cooperation) {
    int devices = 1;
    residua::detail::cuda::check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    residua::detail::cuda::check(cudaSetDevice(ranks.local_rank() % devices), "cudaSetDevice");
    return std::make_unique<BackendSolver<residua::CudaBackend>>(settings, ranks, cooperation);
}
