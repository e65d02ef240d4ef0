#include "backend_solver.hpp"

std::unique_ptr<LayerSolver> make_cpu_solver(const SolveSettings& settings, int threads, Ranks& ranks,
                                             const Cooperation& cooperation) {
    return std::make_unique<BackendSolver<residua::EigenBackend>>(
        settings, ranks, cooperation, threads > 0 ? residua::Executor(threads) : residua::Executor());
}
