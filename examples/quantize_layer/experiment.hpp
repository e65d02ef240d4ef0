#pragma once

#include <Eigen/Core>
#include <chrono>
#include <residua/residua.hpp>
#include <string>

#include "../support/ggml_solvers.hpp"
#include "cuda.hpp"
#include "layer.hpp"
#include "settings.hpp"

using Cpu = residua::EigenBackend;

template <class G>
using Quantized = residua::QuantizedMatrix<float, Cpu, G>;

struct Row {
    std::string method;
    std::string status;
    double objective = NAN;
    double relative_output_error = NAN;
    double accumulate_seconds = 0;
    double solve_seconds = 0;
};

/// The layer, cut into calibration tokens and tokens held back, and what is measured on each.
class Experiment {
  public:
    Experiment(Cpu& backend, const Layer& layer, const Settings& settings);

    bool has_reference() const { return layer_.x_fp.has_value(); }
    residua::Index calibration_tokens() const { return calibration_; }
    residua::Index held_tokens() const { return held_; }

    template <class G>
    Quantized<G> round(const G& grid) {
        const auto start = std::chrono::steady_clock::now();
        Quantized<G> q =
            compiled::round_weights(backend_, layer_.weights(), grid, settings_.solve.options.group_size);
        q.report.seconds.sweep =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (q) q.report.objective = compiled::objective(moments_, layer_.weights(), q);
        return q;
    }

    template <class M, class G>
    Quantized<G> solve(M method, const G& grid) {
        method = settings_.solve.with_coefficients(method);
        const residua::SolverOptions options = with_progress(M::name);
        if constexpr (std::is_same_v<G, residua::IntegerGrid>) {
            if (settings_.device == "cuda") {
                auto result = solve_on_cuda(layer_, calibration_, options, method, grid);
                accumulate_seconds_ = result.accumulate_seconds;
                return std::move(result.quantized);
            }
        }
        // moments are shared, but every method is timed with a factorization of its own
        const residua::Moments<float, Cpu> fresh = copy(moments_);
        const residua::Solver<M, float, Cpu> solver(fresh, options, method);
        return compiled::quantize(solver, layer_.weights(), grid);
    }

    /// Onto the blocks of a GGUF type, or of a FloatFormat.
    SolvedBlocks round(residua::io::GGMLType type);
    SolvedBlocks round(FloatFormat format);
    template <class M>
    SolvedBlocks solve(const M&, residua::io::GGMLType type) {
        return solve_onto_blocks(name_of_method<M>(), type);
    }
    template <class M>
    SolvedBlocks solve(const M&, FloatFormat format) {
        return solve_onto_blocks(name_of_method<M>(), format);
    }

    Row measure(const std::string& method, const SolvedBlocks& q) const {
        return measure(method, q.report, q.weights);
    }
    template <class G>
    Row measure(const std::string& method, const Quantized<G>& q) const {
        return measure(method, q.report, q ? q.dequantize(backend_) : residua::Matrix<float>());
    }

  private:
    template <class M>
    static constexpr const char* name_of_method() {
        return std::is_same_v<M, residua::QEP> ? "qep" : "gptq";
    }
    SolvedBlocks solve_onto_blocks(const std::string& method, residua::io::GGMLType type);
    SolvedBlocks solve_onto_blocks(const std::string& method, FloatFormat format);

    using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    static Eigen::Map<const Dense> map(residua::MatrixView<const float> v) {
        return {v.data, v.rows, v.cols};
    }
    Eigen::Map<const Dense> weights() const { return map(layer_.weights()); }

    /// The options of a solve, which shows on a terminal how far it is.
    residua::SolverOptions with_progress(const std::string& method) const;

    /// `values`: the dequantized weights, where the status is Success.
    Row measure(const std::string& method, const residua::Report& report,
                const residua::Matrix<float>& values) const;

    /// Outputs (tokens, out), in double precision.
    Eigen::MatrixXd product(const Eigen::Ref<const Dense>& w, residua::Index first, residua::Index count,
                            bool reference) const;

    residua::Moments<float, Cpu> copy(const residua::Moments<float, Cpu>& moments) const {
        return {backend_, moments.gram(), moments.cross(), moments.tokens()};
    }

    Cpu& backend_;
    const Layer& layer_;
    const Settings& settings_;
    residua::Moments<float, Cpu> moments_;
    residua::Index calibration_ = 0;
    residua::Index held_ = 0;
    double accumulate_seconds_ = 0;
    double reference_error_ = 0;
};
