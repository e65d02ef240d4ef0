#pragma once

#include "float_formats.hpp"
#include "ggml_types.hpp"
#include "solve_settings.hpp"
#include "solvers.hpp"

/// A layer in ggml's blocks, or in the tensors of a FloatFormat, as a solve leaves it; without them unless
/// report.status is Success.
struct SolvedBlocks {
    residua::Report report;
    residua::io::GGMLMatrix blocks = {};
    std::vector<StoredTensor> tensors = {};
    residua::Matrix<float> weights = {};  ///< what they stand for

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

/// The same onto the grid of a FloatFormat.
SolvedBlocks solve_onto_blocks(const std::string& method, const Moments<Cpu>& moments,
                               const SolveSettings& settings, FloatFormat format, Values weights);
SolvedBlocks round_onto_blocks(Cpu& backend, const SolveSettings& settings, FloatFormat format,
                               Values weights, const Moments<Cpu>* moments = nullptr);

}  // namespace compiled
