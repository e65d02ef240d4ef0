#include <optional>
#include <set>

#include "../support/ggml_solvers.hpp"
#include "layer_solver.hpp"

namespace {

using namespace residua;

/// Moments on the CPU, of this process alone.
class MomentsSolver : public LayerSolver {
  public:
    MomentsSolver(SolveSettings settings, Executor executor)
        : settings_(std::move(settings)), backend_(std::move(executor)) {}

    void start(Index in_features) override {
        moments_.reset();
        moments_.emplace(backend_, in_features);
    }

    void accumulate(const TokenBatch<float>& batch) override {
        compiled::accumulate(*moments_, batch.x, batch.x_fp, batch.stream);
    }

    NormGains<float> final_norm_gains(MatrixView<const float> head) override {
        return compiled::final_norm_gains(*moments_, head);
    }

  protected:
    /// Target: io::GGMLType or FloatFormat.
    template <class Target>
    SolvedLayer solve_onto(const std::string& method, Target target, MatrixView<const float> weights) {
        SolvedBlocks solved =
            method == "rtn" ? compiled::round_onto_blocks(backend_, settings_, target, weights)
                            : compiled::solve_onto_blocks(method, *moments_, settings_, target, weights);
        return {.report = std::move(solved.report),
                .blocks = std::move(solved.blocks),
                .tensors = std::move(solved.tensors),
                .weights = std::move(solved.weights)};
    }

  private:
    SolveSettings settings_;
    compiled::Cpu backend_;
    std::optional<compiled::Moments<compiled::Cpu>> moments_;
};

class FloatSolver : public MomentsSolver {
  public:
    FloatSolver(const SolveSettings& settings, FloatFormat format, const Executor& executor)
        : MomentsSolver(settings, executor), format_(format) {}

    SolvedLayer solve(const std::string& method, MatrixView<const float> weights) override {
        return solve_onto(method, format_, weights);
    }

  private:
    FloatFormat format_;
};

class BlockSolver : public MomentsSolver {
  public:
    BlockSolver(const SolveSettings& settings, io::GGMLType type, const Executor& executor)
        : MomentsSolver(settings, executor), type_(type) {}

    SolvedLayer solve(const std::string& method, MatrixView<const float> weights) override {
        const io::GGMLType type = ggml_type_for(type_, weights.cols);
        if (type != type_ && said_.insert(weights.cols).second)
            announce_replacement(type_, type, weights.cols);
        if (type == io::GGMLType::F16) return rounded_to_half(weights);
        return solve_onto(method, type, weights);
    }

  private:
    static SolvedLayer rounded_to_half(MatrixView<const float> weights) {
        SolvedLayer solved;
        solved.weights = Matrix<float>(weights.rows, weights.cols);
        std::vector<float16> halves;
        for (Index r = 0; r < weights.rows; ++r) {
            for (Index j = 0; j < weights.cols; ++j) {
                halves.push_back(float16(weights(r, j)));
                solved.weights(r, j) = float(halves.back());
            }
        }
        const auto bytes = std::as_bytes(std::span(halves));
        solved.blocks = {io::GGMLType::F16, weights.rows, weights.cols, {bytes.begin(), bytes.end()}};
        return solved;
    }

    io::GGMLType type_;
    std::set<Index> said_;  // of which rows it has been said
};

}  // namespace

std::unique_ptr<LayerSolver> make_block_solver(const SolveSettings& settings, io::GGMLType type,
                                               const Executor& executor) {
    return std::make_unique<BlockSolver>(settings, type, executor);
}

std::unique_ptr<LayerSolver> make_float_solver(const SolveSettings& settings, FloatFormat format,
                                               const Executor& executor) {
    return std::make_unique<FloatSolver>(settings, format, executor);
}
