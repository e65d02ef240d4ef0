#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "residua/io/safetensors/file.hpp"
#include "support/layer.hpp"

namespace residua::test {

/// One result of the published code (tests/data/official.safetensors).
struct GoldenCase {
    std::string name;
    nlohmann::json settings;
    reference::Matrix dequantized;

    IntegerGrid grid() const {
        IntegerGrid grid;
        grid.bits = settings.at("bits");
        grid.symmetry = settings.at("symmetric") ? Symmetry::Restricted : Symmetry::None;
        grid.clip.enabled = settings.at("mse_clip");
        return grid;
    }

    /// Options that reproduce the published order of events.
    SolverOptions options() const {
        SolverOptions options;
        options.group_size = settings.at("group_size").get<Index>();
        options.block_size = settings.at("block_size").get<Index>();
        options.ordering = settings.at("act_order") ? Ordering::Activation : Ordering::Natural;
        options.static_groups = settings.at("static_groups");
        options.damping.initial = settings.at("damping");
        options.published.scales = GroupScales::Stale;
        if (method() == "gptaq") options.published.view = ResidualView::Quantized;
        if (method() == "rescomp")
            options.published.view =
                settings.at("bits") == 2 ? ResidualView::Quantized : ResidualView::Clamped;
        return options;
    }

    std::string method() const { return settings.at("method"); }
    double alpha() const { return settings.at("alpha"); }
    double relative_output_error() const { return settings.at("rel_output_error_asym"); }
};

struct Golden {
    Layer layer;
    std::vector<GoldenCase> cases;
};

inline Golden read_golden() {
    const io::SafetensorsFile file(std::string(RESIDUA_TEST_DATA_DIR) + "/official.safetensors");
    const auto matrix = [&](const std::string& name) {
        const auto& shape = file.info(name).shape;
        return reference::Matrix(shape.at(0), shape.at(1), file.read<double>(name));
    };
    Golden golden{{0, 0, 0, matrix("weight"), matrix("x"), matrix("x_fp")}, {}};
    golden.layer.m = golden.layer.w.rows;
    golden.layer.n = golden.layer.w.cols;
    golden.layer.tokens = golden.layer.x.rows;
    for (const auto& [key, value] : file.metadata()) {
        if (key.rfind("case.", 0) != 0) continue;
        const std::string name = key.substr(5);
        golden.cases.push_back(GoldenCase{name, nlohmann::json::parse(value), matrix("q." + name)});
    }
    return golden;
}

}  // namespace residua::test
