#include "backend_solver.hpp"

std::unique_ptr<LayerSolver> make_cpu_solver(const SolveSettings& settings, int threads) {
    return std::make_unique<BackendSolver<residua::EigenBackend>>(
        settings, threads > 0 ? residua::Executor(threads) : residua::Executor());
}
