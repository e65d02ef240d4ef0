#pragma once

#include <memory>
#include <residua/solver/quantized_layer.hpp>
#include <string>

#include "../support/solve_settings.hpp"

/// One quantized layer in host memory; without codes unless report.status is Success.
struct SolvedLayer {
    residua::Report report;
    residua::QuantizedLayer<residua::IntegerGrid> layer = {};
};

/// Quantizes the layers that read one input, on some device.
class LayerSolver {
  public:
    virtual ~LayerSolver() = default;

    /// Forgets the tokens so far; `in_features` features of another input come next.
    virtual void start(residua::Index in_features) = 0;

    /// Tokens (tokens, in_features) of the quantized model and, unless empty, of the full-precision model.
    virtual void accumulate(residua::MatrixView<const float> x, residua::MatrixView<const float> x_fp) = 0;

    /// Quantizes weights (out, in_features) by one of method_names().
    virtual SolvedLayer solve(const std::string& method, residua::MatrixView<const float> weights) = 0;
};

std::unique_ptr<LayerSolver> make_cpu_solver(const SolveSettings& settings, int threads);

#ifdef RESIDUA_EXAMPLE_CUDA
std::unique_ptr<LayerSolver> make_cuda_solver(const SolveSettings& settings);
#else
inline std::unique_ptr<LayerSolver> make_cuda_solver(const SolveSettings&) {
    residua::reject("--device", "cuda", "cpu: this program was built without RESIDUA_CUDA");
}
#endif
