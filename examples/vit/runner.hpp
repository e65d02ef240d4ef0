#pragma once

#include <cmath>
#include <functional>
#include <numbers>
#include <optional>
#include <residua/backends/host/executor.hpp>
#include <residua/transform/activation_quantizer.hpp>

#include "images.hpp"

namespace vit {

/// One image on its way through a block.
struct Activations {
    Rows residual;    ///< (tokens, hidden)
    Rows input = {};  ///< of the linear layer that comes next, rounded as it will see it
};

/// The architecture, one image at a time: from one linear layer to the next, so that calibration can stop before each and
/// change its weights there. Pre-norm blocks: x + proj(attention(qkv(norm1(x)))), then x + fc2(gelu(fc1(norm2(x)))).
class Runner {
  public:
    /// `inputs`: of the linear layers of blocks, if they are rounded.
    explicit Runner(const Config& config, std::optional<residua::ActivationQuantizer> inputs = {})
        : config_(config), inputs_(inputs) {}

    /// An image, (channels * height * width), as tokens: the class token and the patches, with their positions.
    Activations embed(const Model& model, const float* image) const {
        Activations a{.residual = model.positions};
        a.residual.row(0) += model.class_token;
        a.residual.bottomRows(config_.tokens() - 1) += model.patches(patches_of(config_, image));
        return a;
    }

    /// From the residual stream to the input of the block's first linear layer.
    void enter(const Block& block, Activations& a) const {
        set_input(a, layer_norm(a.residual, block.attention_norm));
    }

    /// Through a linear layer, to the input of the next one or, after the last, out of the block.
    void advance(Layer layer, const Block& block, Activations& a) const {
        Rows y = block[layer](a.input);
        switch (layer) {
            case Layer::Qkv:
                return set_input(a, attention(y));
            case Layer::Proj:
                a.residual += y;
                return set_input(a, layer_norm(a.residual, block.mlp_norm));
            case Layer::Fc1:
                y = y.unaryExpr(
                    [](float x) { return x / 2 * (1 + std::erf(x * std::numbers::sqrt2_v<float> / 2)); });
                return set_input(a, std::move(y));
            case Layer::Fc2:
                a.residual += y;
                a.input.resize(0, 0);
        }
    }

    /// (classes), of the class token behind the last block.
    Vector logits(const Model& model, const Activations& a) const {
        return model.head(layer_norm(a.residual.topRows(1), model.norm));
    }

    /// (classes), of an image.
    Vector logits(const Model& model, const float* image) const {
        Activations a = embed(model, image);
        for (const Block& block : model.blocks) {
            enter(block, a);
            for (const Layer layer : layers) advance(layer, block, a);
        }
        return logits(model, a);
    }

  private:
    void set_input(Activations& a, Rows input) const {
        a.input = std::move(input);
        if (inputs_) inputs_->apply(view(a.input), alone_);
    }

    static Rows layer_norm(const Rows& x, const Norm& norm) {
        Rows y(x.rows(), x.cols());
        for (Index t = 0; t < x.rows(); ++t) {
            const Vector centered = x.row(t).array() - x.row(t).mean();
            const float variance = centered.squaredNorm() / float(x.cols());
            y.row(t) =
                centered.cwiseProduct(norm.weight) / std::sqrt(variance + Config::norm_epsilon) + norm.bias;
        }
        return y;
    }

    /// softmax(q k' / sqrt(size)) v for each head; qkv is (tokens, 3 * heads * size).
    Rows attention(const Rows& qkv) const {
        const Index tokens = qkv.rows();
        const Index size = config_.hidden / config_.heads;
        const float scale = 1.0f / std::sqrt(float(size));
        Rows context(tokens, config_.hidden);
        for (Index head = 0; head < config_.heads; ++head) {
            const auto part = [&](Index which) {
                return qkv.block(0, which * config_.hidden + head * size, tokens, size);
            };
            Rows scores = scale * part(0) * part(1).transpose();
            for (Index t = 0; t < tokens; ++t) {
                auto row = scores.row(t).array();
                row = (row - row.maxCoeff()).exp();
                row /= row.sum();
            }
            context.middleCols(head * size, size).noalias() = scores * part(2);
        }
        return context;
    }

    Config config_;
    std::optional<residua::ActivationQuantizer> inputs_;
    residua::Executor alone_{1};  // images run in parallel, not what one of them needs
};

/// Sums over images.
struct Score {
    double correct = 0;  ///< images whose class has the largest logit
    double loss = 0;     ///< -sum log p(class)
    double images = 0;

    double top1() const { return correct / images; }
    double cross_entropy() const { return loss / images; }
};

/// Over all images, which run in parallel.
inline Score score(const Runner& runner, const Model& model, const Images& images,
                   const residua::Executor& executor) {
    std::vector<double> losses(std::size_t(images.count()));
    std::vector<char> hits(losses.size());
    executor(images.count(), [&](Index i) {
        const Vector logits = runner.logits(model, images.pixels.row(i).data());
        Index best = 0;
        const float top = logits.maxCoeff(&best);
        const Index label = images.labels[std::size_t(i)];
        hits[std::size_t(i)] = best == label;
        losses[std::size_t(i)] =
            std::log(double((logits.array() - top).exp().sum())) + double(top - logits(label));
    });
    Score total{.images = double(images.count())};
    for (std::size_t i = 0; i < losses.size(); ++i) {
        total.loss += losses[i];
        total.correct += hits[i];
    }
    return total;
}

}  // namespace vit
