#pragma once

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <residua/core/report.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "degradation.hpp"

/// A layer cannot be solved, on no rank.
struct UnsolvedLayer : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What became of one linear layer.
struct LayerRecord {
    std::string name;
    residua::Index block = 0;
    double output_error = 0;  ///< |Q x - W x_fp| / |W x_fp| on a sample of the tokens; NaN without any
    double objective = 0;     ///< |(W - Q) X|^2 + 2 tr(E D' W') or |(W - Q) X|^2, what the method minimizes
    double damping = 0;
    double seconds = 0;  ///< of the solve
    Degradation degradation = {};

    /// Throws UnsolvedLayer where the layer has no codes.
    void take_down(const residua::Report& report) {
        if (report.status != residua::Status::Success)
            throw UnsolvedLayer("residua: " + name + ": " + std::string(to_string(report.status)) +
                                ", damping " + std::to_string(report.damping) + ", dead inputs " +
                                std::to_string(report.dead_columns.size()));
        objective = report.achieved().value_or(0);
        damping = report.damping;
        degradation = Degradation::of(report);
        seconds = report.seconds.solve();
    }
};

/// null for NaN and infinities, which JSON has no words for.
inline nlohmann::json number_or_null(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

inline nlohmann::json to_json(const std::vector<LayerRecord>& layers) {
    nlohmann::json all = nlohmann::json::array();
    for (const LayerRecord& layer : layers)
        all.push_back({{"name", layer.name},
                       {"output_error", number_or_null(layer.output_error)},
                       {"objective", layer.objective},
                       {"damping", layer.damping},
                       {"degradation", layer.degradation.text()},
                       {"seconds", layer.seconds}});
    return all;
}

/// Says what the layers had to put up with, on stderr. Whether it was anything.
inline bool announce_degraded(const std::string& method, const std::vector<LayerRecord>& layers) {
    bool found = false;
    for (const LayerRecord& layer : layers) {
        const std::string words = layer.degradation.text();
        if (words.empty()) continue;
        std::fprintf(stderr, "%s: %s: %s\n", method.c_str(), layer.name.c_str(), words.c_str());
        found = true;
    }
    return found;
}
