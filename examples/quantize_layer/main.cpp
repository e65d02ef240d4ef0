/// Quantizes one linear layer with every method and shows which is best on tokens that were held back.

#include <unistd.h>

#include <Eigen/Core>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "layer.hpp"
#include "settings.hpp"

namespace {

using namespace residua;
using Backend = EigenBackend;
using Quantized = QuantizedMatrix<float, Backend, IntegerGrid>;

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
    Experiment(Backend& backend, const Layer& layer, const Settings& settings)
        : backend_(backend), layer_(layer), settings_(settings), moments_(backend, layer.in) {
        held_ = settings.calibrate_on_all || layer.tokens < 2 ? 0 : std::max<Index>(1, layer.tokens / 4);
        calibration_ = layer.tokens - held_;
        const auto start = std::chrono::steady_clock::now();
        if (layer.x_fp) {
            moments_.accumulate(layer.inputs(0, calibration_), layer.reference(0, calibration_));
        } else {
            moments_.accumulate(layer.inputs(0, calibration_));
        }
        accumulate_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (layer.x_fp)
            reference_error_ =
                (product(weights(), 0, calibration_, true) - product(weights(), 0, calibration_, false))
                    .squaredNorm();
    }

    Index calibration_tokens() const { return calibration_; }
    Index held_tokens() const { return held_; }

    Quantized round() {
        const auto start = std::chrono::steady_clock::now();
        Quantized q =
            round_to_nearest<float>(backend_, layer_.weights(), settings_.grid, settings_.options.group_size);
        q.report.seconds.sweep =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (q) q.report.objective = objective(moments_, layer_.weights(), q);
        return q;
    }

    template <class M>
    Quantized solve(M rule) {
        if constexpr (requires { rule.alpha; })
            rule.alpha = settings_.alpha < 0 ? rule.alpha : settings_.alpha;
        if constexpr (requires { rule.beta; }) rule.beta = settings_.beta < 0 ? rule.beta : settings_.beta;
        SolverOptions options = settings_.options;
        if (isatty(STDERR_FILENO)) {
            options.progress = [](const Progress& p) {
                return std::fprintf(stderr, "\r%s %3d %%%s", M::name, int(100 * p.done / p.total),
                                    p.done == p.total ? "\r\033[K" : ""),
                       true;
            };
        }
        // moments are shared, but every method is timed with a factorization of its own
        const Moments<float, Backend> fresh = copy(moments_);
        return Solver<M, float, Backend>(fresh, options, rule).quantize(layer_.weights(), settings_.grid);
    }

    Row measure(const std::string& method, const Quantized& q) const {
        Row row{.method = method, .status = std::string(to_string(q.report.status))};
        row.accumulate_seconds = method == "rtn" ? 0 : accumulate_seconds_;
        row.solve_seconds = q.report.seconds.solve();
        if (!q) return row;
        // |W X_fp - Q X|^2 where there are reference inputs, else |(W - Q) X|^2
        if (q.report.objective) {
            row.objective = q.report.objective->asymmetric
                                ? *q.report.objective->asymmetric + reference_error_
                                : q.report.objective->symmetric;
        }
        const Index first = held_ > 0 ? calibration_ : 0;
        const Index count = held_ > 0 ? held_ : calibration_;
        const Matrix<float> values = q.dequantize(backend_);
        const auto wanted = product(weights(), first, count, true);
        row.relative_output_error =
            (product(map(values.view()), first, count, false) - wanted).norm() / wanted.norm();
        return row;
    }

  private:
    using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    static Eigen::Map<const Dense> map(MatrixView<const float> v) { return {v.data, v.rows, v.cols}; }
    Eigen::Map<const Dense> weights() const { return map(layer_.weights()); }

    /// Outputs (tokens, out), in double precision.
    Eigen::MatrixXd product(const Eigen::Ref<const Dense>& w, Index first, Index count,
                            bool reference) const {
        const auto x = map(reference ? layer_.reference(first, count) : layer_.inputs(first, count));
        return x.cast<double>() * w.cast<double>().transpose();
    }

    Moments<float, Backend> copy(const Moments<float, Backend>& moments) const {
        return {backend_, moments.gram(), moments.cross(), moments.tokens()};
    }

    Backend& backend_;
    const Layer& layer_;
    const Settings& settings_;
    Moments<float, Backend> moments_;
    Index calibration_ = 0;
    Index held_ = 0;
    double accumulate_seconds_ = 0;
    double reference_error_ = 0;
};

void write(const std::string& path, const Settings& settings, const std::string& method, const Quantized& q,
           Backend& backend) {
    const Index m = q.codes.rows();
    const Index n = q.codes.cols();
    const Index groups = q.scales.cols();
    const Matrix<float> values = q.dequantize(backend);
    const auto elements = [](const auto& matrix) {
        return std::span(matrix.data(), std::size_t(matrix.size()));
    };
    io::write_safetensors(
        path,
        {io::tensor_of("scales", {m, groups}, elements(q.scales)),
         io::tensor_of("zeros", {m, groups}, elements(q.zeros)),
         io::tensor_of("dequantized", {m, n}, elements(values)),
         io::tensor_of("group_index", {n}, q.group_index), io::tensor_of("codes", {m, n}, elements(q.codes))},
        {{"format", "residua"},
         {"method", method},
         {"bits", std::to_string(settings.grid.bits)},
         {"group_size", std::to_string(settings.options.group_size)},
         {"damping", std::to_string(q.report.damping)},
         {"input", settings.input},
         {"command", settings.command}});
}

nlohmann::json to_json(const Row& row) {
    const auto number = [](double value) {
        return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
    };
    return {{"method", row.method},
            {"status", row.status},
            {"objective", number(row.objective)},
            {"relative_output_error", number(row.relative_output_error)},
            {"accumulate_seconds", row.accumulate_seconds},
            {"solve_seconds", row.solve_seconds}};
}

int run(const Settings& settings) {
    const Layer layer = read_layer(settings.input);
    Backend backend(settings.threads > 0 ? Executor(settings.threads) : Executor());
    Experiment experiment(backend, layer, settings);
    std::fprintf(stderr, "%s: %td x %td, %td tokens to calibrate on, %td held back%s\n",
                 settings.input.c_str(), layer.out, layer.in, experiment.calibration_tokens(),
                 experiment.held_tokens(), layer.x_fp ? "" : ", no reference inputs");
    if (experiment.held_tokens() == 0)
        std::fprintf(stderr, "output errors are those of the calibration tokens\n");

    std::vector<Row> rows;
    bool failed = false;
    const auto add = [&](const std::string& method, bool needs_reference, const auto& quantize) {
        if (settings.method != "all" && settings.method != method) return;
        if (needs_reference && !layer.x_fp) {
            require(settings.method == "all", "--method: x_fp for " + method + " is", "missing",
                    "it in " + settings.input);
            rows.push_back({.method = method, .status = "no x_fp in the input"});
            return;
        }
        const Quantized q = quantize();
        rows.push_back(experiment.measure(method, q));
        failed = failed || !q;
        if (q.report.damping_retries > 0) {
            std::fprintf(stderr, "%s: damping raised to %g\n", method.c_str(), q.report.damping);
        }
        if (q && !settings.output.empty()) write(settings.output, settings, method, q, backend);
    };
    add("rtn", false, [&] { return experiment.round(); });
    add("gptq", false, [&] { return experiment.solve(GPTQ{}); });
    add("gptq+rescomp", false, [&] { return experiment.solve(GPTQResidualComp{}); });
    add("gptaq", true, [&] { return experiment.solve(GPTAQ{}); });
    add("rescomp", true, [&] { return experiment.solve(ResidualComp{}); });
    add("shifted", true, [&] { return experiment.solve(ShiftedTarget{}); });

    if (settings.json) {
        nlohmann::json table = nlohmann::json::array();
        for (const Row& row : rows) table.push_back(to_json(row));
        std::cout << table.dump(2) << '\n';
        return failed ? 1 : 0;
    }
    std::printf("%-14s %14s %22s %10s  %s\n", "method", "objective", "relative output error", "seconds",
                "status");
    for (const Row& row : rows) {
        std::printf("%-14s %14.6g %22.6f %10.4f  %s\n", row.method.c_str(), row.objective,
                    row.relative_output_error, row.solve_seconds, row.status.c_str());
    }
    return failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Quantizes one linear layer and measures the error of its output.", "quantize_layer");
    try {
        return run(parse_settings(app, argc, argv));
    } catch (const CLI::ParseError& error) {
        return app.exit(error);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 2;
    }
}
