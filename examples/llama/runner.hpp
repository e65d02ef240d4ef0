#pragma once

#include <optional>
#include <residua/transform/hadamard.hpp>

#include "activations.hpp"
#include "operations.hpp"
#include "tokens.hpp"

namespace llama {

/// The rotations that a checkpoint with Config::online_hadamard leaves to be done to the activations.
struct OnlineRotations {
    residua::HadamardTransform output;  ///< of o_proj's input, across heads
    residua::HadamardTransform down;    ///< of down_proj's input
    residua::HadamardTransform expert;  ///< of an expert's down_proj's input
    residua::HadamardTransform head;    ///< of a query or key head, before keys are rounded

    explicit OnlineRotations(const Config& c)
        : output(c.query_size(), {.block = residua::largest_hadamard_block(c.heads), .inner = c.head_size}),
          down(c.intermediate),
          expert(c.experts.count > 0 ? c.experts.intermediate : c.intermediate),
          head(c.head_size) {}
};

/// One window on its way through a block.
struct Activations {
    Rows residual;  ///< (tokens, hidden)
    /// Of the linear layers that come next, rounded as they will see it. Before experts' down_proj it stays that of
    /// their gate_proj, from which expert_input() goes on.
    Rows input = {};
    Routing routing = {};  ///< where the block has experts: of its MLP
};

/// The Llama architecture, one window at a time: from one point where linear layers read to the next, so that
/// calibration can stop at each of the four and change the weights there.
class Runner {
  public:
    Runner(const Config& config, Index positions, const ActivationSettings& settings = {})
        : config_(config),
          settings_(settings),
          rotary_(config.rotary, config.head_size, positions),
          sliding_rotary_(config.sliding_rotary, config.head_size, positions) {
        if (!config.online_hadamard) return;
        const OnlineRotations rotations(config);
        output_ = rotations.output;
        down_ = rotations.down;
        expert_ = rotations.expert;
        head_ = rotations.head;
    }

    const Config& config() const { return config_; }

    Activations embed(const Model& model, std::span<const Token> tokens) const {
        residua::require(Index(tokens.size()) <= rotary_.positions(),
                         "Runner::embed: tokens of a window:", tokens.size(),
                         "at most " + std::to_string(rotary_.positions()));
        Activations a{.residual = Rows(Index(tokens.size()), config_.hidden)};
        for (std::size_t t = 0; t < tokens.size(); ++t)
            a.residual.row(Index(t)) = config_.embedding_scale * model.embedding.row(tokens[t]);
        return a;
    }

    /// From the residual stream to the input of the block's first linear layers.
    void enter(const Block& block, Activations& a) const {
        set_input(a, rms_norm(a.residual, block.attention_norm, config_.norm_epsilon));
    }

    /// Through the linear layers that read `input`, to the next input or, after the last, out of the block.
    void advance(Input input, const Block& block, Activations& a) const {
        switch (input) {
            case Input::Attention:
                return set_input(a, attend(block, a.input));
            case Input::Output: {
                add(block[Role::Output](a.input), block.attention_output_norm, a);
                Rows x = rms_norm(a.residual, block.mlp_norm, config_.norm_epsilon);
                if (block.has_experts()) a.routing = route(block.router(x), config_.experts);
                return set_input(a, std::move(x));
            }
            case Input::Mlp:
                if (!block.has_experts()) set_input(a, hidden(block, every_token, a.input));
                return;
            case Input::Down:
                add(block.has_experts() ? mixture(block, a) : block[Role::Down](a.input),
                    block.mlp_output_norm, a);
                a.input.resize(0, 0);
        }
    }

    /// What the layers of an expert read at `input` of the given tokens, whoever they were sent to.
    Rows expert_input(const Block& block, Input input, Index expert, const Activations& a,
                      std::span<const Index> tokens) const {
        Rows x(Index(tokens.size()), a.input.cols());
        for (std::size_t i = 0; i < tokens.size(); ++i) x.row(Index(i)) = a.input.row(tokens[i]);
        if (input != Input::Down) return x;
        x = hidden(block, expert, x);
        round(x);
        return x;
    }

    void run(const Block& block, Activations& a) const {
        enter(block, a);
        for (const Input input : inputs) advance(input, block, a);
    }

    /// From the residual stream through the last norm, to what the output layer reads.
    void leave(const Model& model, Activations& a) const {
        a.input = rms_norm(a.residual, model.norm, config_.norm_epsilon);
    }

    /// (tokens, vocabulary) for rows [first, first + count) of the residual stream.
    Rows logits(const Model& model, const Rows& residual, Index first, Index count) const {
        return rms_norm(residual.middleRows(first, count), model.norm, config_.norm_epsilon) *
               model.head.transpose();
    }

    /// (tokens, vocabulary) of one window.
    Rows logits(const Model& model, std::span<const Token> tokens) const {
        Activations a = embed(model, tokens);
        for (const Block& block : model.blocks) run(block, a);
        return logits(model, a.residual, 0, a.residual.rows());
    }

  private:
    void set_input(Activations& a, Rows input) const {
        a.input = std::move(input);
        round(a.input);
    }

    void round(Rows& x) const {
        if (settings_.inputs) settings_.inputs->apply(view(x), alone_);
    }

    void add(const Rows& output, const Vector& norm, Activations& a) const {
        a.residual += norm.size() > 0 ? rms_norm(output, norm, config_.norm_epsilon) : output;
    }

    /// The input of down_proj for rows that the MLP, or one expert of it, reads.
    Rows hidden(const Block& block, Index expert, const Rows& x) const {
        Rows gate = block.at(Role::Gate, expert)(x);
        gated(gate, block.at(Role::Up, expert)(x), config_.activation);
        const auto& rotation = expert == every_token ? down_ : expert_;
        if (rotation) rotation->apply(view(gate), alone_);
        return gate;
    }

    Rows mixture(const Block& block, const Activations& a) const {
        Rows sum = Rows::Zero(a.input.rows(), config_.hidden);
        for (std::size_t e = 0; e < a.routing.experts.size(); ++e) {
            const auto& [tokens, weights] = a.routing.experts[e];
            if (tokens.empty()) continue;
            const Rows y =
                block.at(Role::Down, Index(e))(expert_input(block, Input::Down, Index(e), a, tokens));
            for (std::size_t i = 0; i < tokens.size(); ++i)
                sum.row(tokens[i]) += weights[i] * y.row(Index(i));
        }
        return sum;
    }

    Rows attend(const Block& block, const Rows& input) const {
        Rows q = block[Role::Query](input), k = block[Role::Key](input), v = block[Role::Value](input);
        norm_heads(q, block.query_norm);
        norm_heads(k, block.key_norm);
        const RotaryEmbedding& rotary = block.is_sliding ? sliding_rotary_ : rotary_;
        rotary.apply(q);
        rotary.apply(k);
        if (settings_.cache) {
            if (head_) {  // the same rotation of q and k leaves their products as they are
                head_->apply(heads(q), alone_);
                head_->apply(heads(k), alone_);
            }
            settings_.cache->apply(heads(k), alone_);
            settings_.cache->apply(heads(v), alone_);
        }
        Rows context = attention(config_, q, k, v, block.is_sliding ? config_.sliding_window : q.rows());
        if (output_) output_->apply(view(context), alone_);
        return context;
    }

    void norm_heads(Rows& x, const Vector& norm) const {
        if (norm.size() == 0) return;
        Eigen::Map<Rows> heads(x.data(), x.size() / norm.size(), norm.size());
        heads = rms_norm(heads, norm, config_.norm_epsilon);
    }

    /// Each head of each token on its own: the rows of a (tokens * heads, head_size) view.
    residua::MatrixView<float> heads(Rows& x) const {
        return {x.data(), x.rows() * x.cols() / config_.head_size, config_.head_size};
    }

    Config config_;
    ActivationSettings settings_;
    RotaryEmbedding rotary_, sliding_rotary_;
    std::optional<residua::HadamardTransform> output_, down_, expert_, head_;  // with Config::online_hadamard
    residua::Executor alone_{1};  // windows run in parallel, not what one of them needs
};

}  // namespace llama
