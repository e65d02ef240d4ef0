#pragma once

#include <llama/model.hpp>
#include <random>

namespace llama {

/// What a random model has that the shipped one lacks, beside biases and an odd ratio of heads.
enum class Kind {
    Scaled,   ///< norms of heads, Llama 3's rotary scaling
    Experts,  ///< a mixture of experts in the first of its blocks, norms of heads
    Gemma,    ///< a sliding window in the first of its blocks, and what else is Gemma's alone
};

inline Model random_model(Kind kind = Kind::Scaled) {
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
    c.rotary.base = 500;
    if (kind == Kind::Scaled)
        c.rotary.scaling =
            RotaryScaling{.factor = 8, .low_factor = 1, .high_factor = 4, .original_positions = 64};
    if (kind == Kind::Experts) {
        c.type = "qwen3_moe";
        c.experts = {.count = 5, .per_token = 2, .intermediate = 20, .renormalizes = false};
        c.sparse = {true, false};
    }
    if (kind == Kind::Gemma) {
        c.type = "gemma3_text";
        c.activation = Activation::GeluTanh;
        c.output_norms = true;
        c.embedding_scale = 1.5f;
        c.query_scalar = 12;
        c.rotary.divisor = 4;
        c.sliding_window = 5;
        c.sliding = {true, false};
        c.sliding_rotary.base = 50;
    }
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
        block.is_sliding = c.is_sliding(i);
        for (const NormSpec& norm : norms_of(c)) fill(block.*norm.norm, 1, norm.size, 1);
        if (c.has_experts(i)) fill(block.router.weight, c.experts.count, c.hidden, 0.5f);
        for (const LayerSpec& spec : layers_of(c, i)) {
            Linear& linear = block.layers.emplace_back(BlockLayer{spec}).linear;
            fill(linear.weight, spec.out, spec.in, 0.3f);
            fill(linear.bias, 1, spec.out, 0.1f);
        }
    }
    return model;
}

}  // namespace llama
