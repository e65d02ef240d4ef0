#include "group_solver.hpp"

namespace {

class CpuSolver : public LayerSolver {
  public:
    CpuSolver(const SolveSettings& settings, const residua::Executor& executor, Ranks& ranks,
              const Cooperation& cooperation)
        : solver_(settings, ranks, cooperation, executor) {}

    void start(residua::Index in_features) override { solver_.start(in_features); }
    void accumulate(const TokenBatch<float>& batch) override { solver_.accumulate(batch); }
    SolvedLayer solve(const std::string& method, residua::MatrixView<const float> weights) override {
        return solver_.solve(method, weights);
    }
    residua::NormGains<float> final_norm_gains(residua::MatrixView<const float> head) override {
        return solver_.final_norm_gains(head);
    }

  private:
    GroupSolver<residua::EigenBackend> solver_;
};

}  // namespace

std::unique_ptr<LayerSolver> make_cpu_solver(const SolveSettings& settings, const residua::Executor& executor,
                                             Ranks& ranks, const Cooperation& cooperation) {
    return std::make_unique<CpuSolver>(settings, executor, ranks, cooperation);
}
