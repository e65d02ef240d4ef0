#pragma once

#include <cstdio>
#include <vector>

#include "../support/degradation.hpp"
#include "experiment.hpp"

struct Result {
    std::vector<Row> rows;
    bool failed = false;
    bool degraded = false;  ///< a method succeeded, but see Degradation
};

/// Runs the methods that the settings ask for, onto any grid, or onto the blocks of a GGUF type or a FloatFormat.
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

    void add(const std::string& method, const auto& q) {
        result.rows.push_back(experiment_.measure(method, q));
        result.failed = result.failed || !q;
        const Degradation degradation = Degradation::of(q.report);
        if (const std::string words = degradation.text(); !words.empty()) {
            std::fprintf(stderr, "%s: %s\n", method.c_str(), words.c_str());
            result.degraded = true;
        }
        if (q && !settings_.output.empty()) write_(method, q);
    }

    Experiment& experiment_;
    const Settings& settings_;
    const G& grid_;
    Write write_;
};

/// Onto integers: --format residua, gptq-v1, gptq-v2 and compressed-tensors, every method.
Result quantize_to_integers(Experiment& experiment, const Settings& settings, Cpu& backend);

/// Onto the blocks of --format gguf-*, nvfp4, mxfp4 and nf4, with rounding, GPTQ and QEP.
Result quantize_to_blocks(Experiment& experiment, const Layer& layer, const Settings& settings);
