#include "experiment.hpp"

#include <unistd.h>

#include <cstdio>

using namespace residua;

Experiment::Experiment(Cpu& backend, const Layer& layer, const Settings& settings)
    : backend_(backend), layer_(layer), settings_(settings), moments_(backend, layer.in) {
    held_ = settings.calibrate_on_all || layer.tokens < 2 ? 0 : std::max<Index>(1, layer.tokens / 4);
    calibration_ = layer.tokens - held_;
    const auto start = std::chrono::steady_clock::now();
    compiled::accumulate(moments_, layer.inputs(0, calibration_),
                         layer.x_fp ? layer.reference(0, calibration_) : MatrixView<const float>());
    accumulate_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (layer.x_fp)
        reference_error_ =
            (product(weights(), 0, calibration_, true) - product(weights(), 0, calibration_, false))
                .squaredNorm();
}

SolverOptions Experiment::with_progress(const std::string& method) const {
    SolverOptions options = settings_.solve.options;
    if (isatty(STDERR_FILENO)) {
        options.progress = [method](const Progress& p) {
            return std::fprintf(stderr, "\r%s %3d %%%s", method.c_str(), int(100 * p.done / p.total),
                                p.done == p.total ? "\r\033[K" : ""),
                   true;
        };
    }
    return options;
}

namespace {

/// Target: io::GGMLType or FloatFormat.
template <class Target>
SolvedBlocks timed_round(Cpu& backend, const SolveSettings& settings, Target target,
                         MatrixView<const float> weights, const Moments<float, Cpu>& moments) {
    const auto start = std::chrono::steady_clock::now();
    SolvedBlocks q = compiled::round_onto_blocks(backend, settings, target, weights, &moments);
    q.report.seconds.sweep = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return q;
}

SolveSettings with_options(SolveSettings settings, SolverOptions options) {
    settings.options = std::move(options);
    return settings;
}

}  // namespace

SolvedBlocks Experiment::round(io::GGMLType type) {
    return timed_round(backend_, settings_.solve, type, layer_.weights(), moments_);
}

SolvedBlocks Experiment::round(FloatFormat format) {
    return timed_round(backend_, settings_.solve, format, layer_.weights(), moments_);
}

SolvedBlocks Experiment::solve_onto_blocks(const std::string& method, io::GGMLType type) {
    return compiled::solve_onto_blocks(
        method, copy(moments_), with_options(settings_.solve, with_progress(method)), type, layer_.weights());
}

SolvedBlocks Experiment::solve_onto_blocks(const std::string& method, FloatFormat format) {
    return compiled::solve_onto_blocks(method, copy(moments_),
                                       with_options(settings_.solve, with_progress(method)), format,
                                       layer_.weights());
}

Row Experiment::measure(const std::string& method, const Report& report, const Matrix<float>& values) const {
    Row row{.method = method, .status = std::string(to_string(report.status))};
    row.accumulate_seconds = method == "rtn" ? 0 : accumulate_seconds_;
    row.solve_seconds = report.seconds.solve();
    if (report.status != Status::Success) return row;
    // |W X_fp - Q X|^2 where there are reference inputs, else |(W - Q) X|^2
    if (report.objective) {
        row.objective = report.objective->asymmetric ? *report.objective->asymmetric + reference_error_
                                                     : report.objective->symmetric;
    }
    const Index first = held_ > 0 ? calibration_ : 0;
    const Index count = held_ > 0 ? held_ : calibration_;
    const auto wanted = product(weights(), first, count, true);
    row.relative_output_error =
        (product(map(values.view()), first, count, false) - wanted).norm() / wanted.norm();
    return row;
}

Eigen::MatrixXd Experiment::product(const Eigen::Ref<const Dense>& w, Index first, Index count,
                                    bool reference) const {
    const auto x = map(reference ? layer_.reference(first, count) : layer_.inputs(first, count));
    return x.cast<double>() * w.cast<double>().transpose();
}
