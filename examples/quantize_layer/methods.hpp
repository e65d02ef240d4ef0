#pragma once

#include <cstdio>
#include <vector>

#include "experiment.hpp"

struct Result {
    std::vector<Row> rows;
    bool failed = false;
};

/// Runs the methods that the settings ask for, onto any grid.
template <class G, class Write>
class Methods {
  public:
    /// write(method, quantized) is called for each success.
    Methods(Experiment& experiment, const Settings& settings, const G& grid, Write write)
        : experiment_(experiment), settings_(settings), grid_(grid), write_(write) {}

    void round() {
        if (is_wanted("rtn")) add("rtn", experiment_.round(grid_));
    }

    template <class M>
    void solve(const char* name, M method) {
        if (!is_wanted(name)) return;
        if (M::residuals != residua::Residuals::None && !experiment_.has_reference()) {
            residua::require(settings_.method == "all", std::string("--method: x_fp for ") + name + " is",
                             "missing", "it in " + settings_.input);
            result.rows.push_back({.method = name, .status = "no x_fp in the input"});
            return;
        }
        add(name, experiment_.solve(method, grid_));
    }

    Result result;

  private:
    bool is_wanted(const std::string& method) const {
        return settings_.method == "all" || settings_.method == method;
    }

    void add(const std::string& method, const Quantized<G>& q) {
        result.rows.push_back(experiment_.measure(method, q));
        result.failed = result.failed || !q;
        if (q.report.damping_retries > 0)
            std::fprintf(stderr, "%s: damping raised to %g\n", method.c_str(), q.report.damping);
        if (q && !settings_.output.empty()) write_(method, q);
    }

    Experiment& experiment_;
    const Settings& settings_;
    const G& grid_;
    Write write_;
};

/// Onto integers: --format residua, gptq-v1, gptq-v2 and compressed-tensors, every method.
Result quantize_to_integers(Experiment& experiment, const Settings& settings, Cpu& backend);

/// Onto the blocks of --format gguf-*, nvfp4 and mxfp4, with rounding, GPTQ and QEP.
Result quantize_to_blocks(Experiment& experiment, const Layer& layer, const Settings& settings, Cpu& backend);
