#pragma once

#include <optional>
#include <residua/io/safetensors/file.hpp>
#include <residua/residua.hpp>
#include <string>
#include <vector>

#include "../support/memory.hpp"

/// One linear layer with samples of its inputs, as read from a safetensors file.
struct Layer {
    residua::Index out = 0, in = 0, tokens = 0;
    std::vector<float> weight;               ///< (out, in)
    std::vector<float> x;                    ///< (tokens, in)
    std::optional<std::vector<float>> x_fp;  ///< (tokens, in) the same tokens in the full-precision model

    residua::MatrixView<const float> weights() const { return {weight.data(), out, in}; }

    /// Tokens [first, first + count).
    residua::MatrixView<const float> inputs(residua::Index first, residua::Index count) const {
        return {x.data() + first * in, count, in};
    }
    residua::MatrixView<const float> reference(residua::Index first, residua::Index count) const {
        return {(x_fp ? *x_fp : x).data() + first * in, count, in};
    }
};

/// Bytes that quantizing and measuring it takes, about: the layer, moments with a copy and a factorization, and
/// outputs in double precision.
inline double memory_needed(const Layer& layer) {
    const double m = double(layer.out), n = double(layer.in), t = double(layer.tokens);
    return sizeof(float) * (2 * t * n + 4 * m * n + 8 * n * n) + 2 * sizeof(double) * (t * m + t * n);
}

/// Reads `weight`, `x` and, where the file has it, `x_fp`. Throws where they are missing or do not fit
/// together.
inline Layer read_layer(const std::string& path) {
    const residua::io::SafetensorsFile file(path);
    const auto shape = [&](const std::string& name) {
        const auto& dims = file.info(name).shape;
        residua::require(dims.size() == 2, name + " in " + path + " has dimensions:", dims.size(), "2");
        residua::require(dims[0] > 0 && dims[1] > 0, name + " in " + path + " has elements:", 0,
                         "at least 1");
        return std::pair(dims[0], dims[1]);
    };

    Layer layer;
    std::tie(layer.out, layer.in) = shape("weight");
    const auto [tokens, width] = shape("x");
    residua::require(width == layer.in, "x in " + path + " has columns:", width,
                     std::to_string(layer.in) + " (columns of weight)");
    layer.tokens = tokens;
    announce_memory(memory_needed(layer));
    layer.weight = file.read<float>("weight");
    layer.x = file.read<float>("x");
    if (file.contains("x_fp")) {
        const auto [rows, cols] = shape("x_fp");
        residua::require(rows == tokens && cols == width, "x_fp in " + path + " has rows and columns:",
                         std::to_string(rows) + ", " + std::to_string(cols), "those of x");
        layer.x_fp = file.read<float>("x_fp");
    }
    return layer;
}
