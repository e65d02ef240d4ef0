#pragma once

#include <cmath>
#include <numeric>

#include "model.hpp"

namespace llama {

/// x_t <- x_t / sqrt(mean x_t^2 + epsilon) * weight, for each row t.
inline Rows rms_norm(const Rows& x, const Vector& weight, float epsilon) {
    Rows y(x.rows(), x.cols());
    for (Index t = 0; t < x.rows(); ++t) {
        const float mean = x.row(t).squaredNorm() / float(x.cols());
        y.row(t) = x.row(t).cwiseProduct(weight) / std::sqrt(mean + epsilon);
    }
    return y;
}

/// f(g) * u, in place of g: silu(g) = g / (1 + exp(-g)), or GELU by its approximation with tanh.
inline void gated(Rows& gate, const Rows& up, Activation activation) {
    auto g = gate.array();
    if (activation == Activation::Silu) {
        g = g / (1.0f + (-g).exp()) * up.array();
    } else {
        constexpr float slope = 0.7978845608f;  // sqrt(2 / pi)
        g = 0.5f * g * (1.0f + (slope * (g + 0.044715f * g.cube())).tanh()) * up.array();
    }
}

/// The tokens of one window that go to each expert, and how much of its output each of them takes.
struct Routing {
    struct Part {
        std::vector<Index> tokens = {};  ///< ascending
        std::vector<float> weights = {};
    };
    std::vector<Part> experts = {};
};

/// Sends each token to the `per_token` experts with the largest scores; weights are softmax(scores), over all
/// experts or, with `renormalizes`, over those of the token. scores: (tokens, experts).
inline Routing route(Rows scores, const Experts& settings) {
    Routing routing{.experts = std::vector<Routing::Part>(std::size_t(scores.cols()))};
    std::vector<Index> order(std::size_t(scores.cols()));
    for (Index t = 0; t < scores.rows(); ++t) {
        auto row = scores.row(t).array();
        row = (row - row.maxCoeff()).exp();
        row /= row.sum();
        std::iota(order.begin(), order.end(), 0);
        const auto end = order.begin() + settings.per_token;
        std::partial_sort(order.begin(), end, order.end(),
                          [&](Index a, Index b) { return row(a) > row(b) || (row(a) == row(b) && a < b); });
        float sum = 0;
        for (auto expert = order.begin(); expert != end; ++expert) sum += row(*expert);
        for (auto expert = order.begin(); expert != end; ++expert) {
            Routing::Part& part = routing.experts[std::size_t(*expert)];
            part.tokens.push_back(t);
            part.weights.push_back(row(*expert) / (settings.renormalizes ? sum : 1));
        }
    }
    return routing;
}

/// Rotary position embedding: pair (i, i + size/2) of each head turns by position * base^(-2i/size).
class RotaryEmbedding {
  public:
    RotaryEmbedding(const Rotary& rotary, Index head_size, Index positions) : size_(head_size) {
        const Index half = size_ / 2;
        cos_.resize(positions, half);
        sin_.resize(positions, half);
        for (Index i = 0; i < half; ++i) {
            double rate = rotary.rate(i, size_);
            if (rotary.scaling) rate *= rotary.scaling->slowing(rate);
            for (Index t = 0; t < positions; ++t) {
                cos_(t, i) = float(std::cos(double(t) * rate));
                sin_(t, i) = float(std::sin(double(t) * rate));
            }
        }
    }

    Index positions() const { return cos_.rows(); }

    /// (positions, head_size / 2), of the angles that pairs turn by.
    const Rows& cos() const { return cos_; }
    const Rows& sin() const { return sin_; }

    /// x: (tokens, heads * head_size), rows at positions 0, 1, ...
    void apply(Rows& x) const {
        const Index half = size_ / 2;
        for (Index t = 0; t < x.rows(); ++t) {
            for (Index head = 0; head < x.cols() / size_; ++head) {
                float* first = &x(t, head * size_);
                float* second = first + half;
                for (Index i = 0; i < half; ++i) {
                    const float a = first[i], b = second[i];
                    first[i] = a * cos_(t, i) - b * sin_(t, i);
                    second[i] = b * cos_(t, i) + a * sin_(t, i);
                }
            }
        }
    }

  private:
    Index size_;
    Rows cos_, sin_;  // (positions, head_size / 2)
};

/// Causal attention of one window: softmax(q k' * score_scale) v for each head, with `heads / key_value_heads`
/// query heads to a key head. A query sees itself and up to `reach` - 1 keys before it. q: (tokens, heads *
/// head_size); k, v: (tokens, key_value_heads * head_size).
inline Rows attention(const Config& c, const Rows& q, const Rows& k, const Rows& v, Index reach) {
    constexpr Index rows_at_once = 64;  // keys after a query's position are not computed, up to this many
    const Index tokens = q.rows();
    const Index size = c.head_size;
    const float scale = c.score_scale();
    Rows context(tokens, q.cols());
    Eigen::Array<float, Eigen::Dynamic, 1> sums(rows_at_once);  // of the exponentials of each query's scores
    for (Index head = 0; head < c.heads; ++head) {
        const Index source = head / (c.heads / c.key_value_heads) * size;
        for (Index first = 0; first < tokens; first += rows_at_once) {
            const Index count = std::min(rows_at_once, tokens - first);
            const Index first_key = std::max(Index(0), first - reach + 1);
            const Index keys = first + count - first_key;
            Rows scores = scale * q.block(first, head * size, count, size) *
                          k.block(first_key, source, keys, size).transpose();
            for (Index t = 0; t < count; ++t) {
                const Index end = first + t + 1 - first_key;
                const Index begin = std::max(Index(0), end - reach);
                auto row = scores.row(t).segment(begin, end - begin).array();
                row = (row - row.maxCoeff()).exp();
                sums(t) = row.sum();
                scores.row(t).head(begin).setZero();
                scores.row(t).tail(keys - end).setZero();
            }
            auto values = context.block(first, head * size, count, size);
            values.noalias() = scores * v.block(first_key, source, keys, size);
            values.array().colwise() /= sums.head(count);
        }
    }
    return context;
}

}  // namespace llama
