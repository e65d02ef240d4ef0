#pragma once

#include <llama/model.hpp>
#include <random>

namespace llama {

/// A small random model with what the shipped one lacks: biases, norms of heads, Llama 3's rotary scaling, an odd
/// ratio of heads.
inline Model random_model() {
    Model model;
    Config& c = model.config;
    c.hidden = 24;
    c.intermediate = 40;
    c.blocks = 2;
    c.heads = 6;
    c.key_value_heads = 2;
    c.head_size = 8;
    c.vocabulary = 31;
    c.head_norms = true;
    c.rotary_base = 500;
    c.rotary_scaling =
        RotaryScaling{.factor = 8, .low_factor = 1, .high_factor = 4, .original_positions = 64};
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](auto& m, Index rows, Index cols, float scale) {
        m.resize(rows, cols);
        for (Index i = 0; i < m.size(); ++i) m.data()[i] = scale * normal(random);
    };
    fill(model.embedding, c.vocabulary, c.hidden, 1);
    fill(model.head, c.vocabulary, c.hidden, 0.5f);
    fill(model.norm, 1, c.hidden, 1);
    for (Index i = 0; i < c.blocks; ++i) {
        Block& block = model.blocks.emplace_back();
        for (const NormSpec& norm : norms_of(c)) fill(block.*norm.norm, 1, norm.size, 1);
        for (const LayerSpec& spec : layers_of(c)) {
            Linear& linear = block.layers.emplace_back(BlockLayer{spec}).linear;
            fill(linear.weight, spec.out, spec.in, 0.3f);
            fill(linear.bias, 1, spec.out, 0.1f);
        }
    }
    return model;
}

}  // namespace llama
