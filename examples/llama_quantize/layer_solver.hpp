#pragma once

#include <memory>
#include <residua/backends/host/executor.hpp>
#include <residua/io/gguf/tensor.hpp>
#include <residua/solver/final_norm.hpp>
#include <residua/solver/quantized_layer.hpp>
#include <string>

#include "../support/float_formats.hpp"
#include "../support/solve_settings.hpp"
#include "ranks.hpp"

/// One quantized layer in host memory; without codes unless report.status is Success.
struct SolvedLayer {
    residua::Report report;
    residua::QuantizedLayer<residua::IntegerGrid> layer = {};

    // in place of `layer`, onto other grids than integers
    residua::io::GGMLMatrix blocks = {};
    std::vector<StoredTensor> tensors = {};
    residua::Matrix<float> weights = {};  ///< what they stand for
};

/// The same tokens in both models; views are empty where they are not asked for.
template <residua::Element In>
struct TokenBatch {
    using View = residua::MatrixView<const In>;

    residua::Index segment = 0;               ///< of the windows of all ranks, see Cooperation
    View x;                                   ///< (tokens, in_features) of the quantized model
    View x_fp = {};                           ///< of the full-precision model
    residua::ResidualStream<In> stream = {};  ///< (tokens, out_features) that the layer writes to
};

/// Quantizes the layers that read one input, in host memory. All ranks do so together.
class LayerSolver {
  public:
    virtual ~LayerSolver() = default;

    /// Forgets the tokens so far; `in_features` features of another input come next.
    virtual void start(residua::Index in_features) = 0;

    virtual void accumulate(const TokenBatch<float>& batch) = 0;

    /// Quantizes weights (out, in_features) by one of method_names().
    virtual SolvedLayer solve(const std::string& method, residua::MatrixView<const float> weights) = 0;

    /// For tokens of both models behind the last norm, and the output layer (vocabulary, in_features).
    virtual residua::NormGains<float> final_norm_gains(residua::MatrixView<const float> head) = 0;
};

std::unique_ptr<LayerSolver> make_cpu_solver(const SolveSettings& settings, const residua::Executor& executor,
                                             Ranks& ranks, const Cooperation& cooperation);

/// Onto the blocks of a GGUF type, or what replaces it where it does not divide rows, which is said on stderr.
std::unique_ptr<LayerSolver> make_block_solver(const SolveSettings& settings, residua::io::GGMLType type,
                                               const residua::Executor& executor);

std::unique_ptr<LayerSolver> make_float_solver(const SolveSettings& settings, FloatFormat format,
                                               const residua::Executor& executor);
