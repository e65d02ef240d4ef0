#pragma once

#include "ggml_types.hpp"
#include "solve_settings.hpp"
#include "solvers.hpp"

/// A layer in ggml's blocks, as a solve leaves it; without blocks unless report.status is Success.
struct SolvedBlocks {
    residua::Report report;
    residua::io::GGMLMatrix blocks = {};
    residua::Matrix<float> weights = {};  ///< what the blocks stand for

    explicit operator bool() const { return report.status == residua::Status::Success; }
};

namespace compiled {

/// Solves onto the grid of `type`, which is not F16, in its own groups, by "gptq" or "qep". Activation order fits all grids
/// beforehand, for blocks are neighbours in the file.
SolvedBlocks solve_onto_blocks(const std::string& method, const Moments<Cpu>& moments,
                               const SolveSettings& settings, residua::io::GGMLType type, Values weights);

/// Rounds to nearest; reports the objective on `moments`, where they are given.
SolvedBlocks round_onto_blocks(Cpu& backend, const SolveSettings& settings, residua::io::GGMLType type,
                               Values weights, const Moments<Cpu>* moments = nullptr);

}  // namespace compiled
