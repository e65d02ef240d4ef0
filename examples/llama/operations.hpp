#pragma once

#include <cmath>

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

/// silu(g) * u, in place of g.
inline void swiglu(Rows& gate, const Rows& up) {
    gate.array() = gate.array() / (1.0f + (-gate.array()).exp()) * up.array();
}

/// Rotary position embedding: pair (i, i + size/2) of each head turns by position * base^(-2i/size).
class RotaryEmbedding {
  public:
    RotaryEmbedding(const Config& config, Index positions) : size_(config.head_size) {
        const Index half = size_ / 2;
        cos_.resize(positions, half);
        sin_.resize(positions, half);
        for (Index i = 0; i < half; ++i) {
            double rate = config.rotary_rate(i);
            if (config.rotary_scaling) rate *= config.rotary_scaling->slowing(rate);
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

/// Causal attention of one window: softmax(q k' / sqrt(head_size)) v for each head, with `heads /
/// key_value_heads` query heads to a key head. q: (tokens, heads * head_size); k, v: (tokens, key_value_heads
/// * head_size).
inline Rows attention(const Config& c, const Rows& q, const Rows& k, const Rows& v) {
    constexpr Index rows_at_once = 64;  // keys after a query's position are not computed, up to this many
    const Index tokens = q.rows();
    const Index size = c.head_size;
    const float scale = 1.0f / std::sqrt(float(size));
    Rows context(tokens, q.cols());
    for (Index head = 0; head < c.heads; ++head) {
        const Index source = head / (c.heads / c.key_value_heads) * size;
        for (Index first = 0; first < tokens; first += rows_at_once) {
            const Index count = std::min(rows_at_once, tokens - first);
            const Index keys = first + count;
            Rows scores =
                scale * q.block(first, head * size, count, size) * k.block(0, source, keys, size).transpose();
            for (Index t = 0; t < count; ++t) {
                const Index visible = first + t + 1;
                auto row = scores.row(t).head(visible).array();
                row = (row - row.maxCoeff()).exp();
                row /= row.sum();
                scores.row(t).tail(keys - visible).setZero();
            }
            context.block(first, head * size, count, size).noalias() =
                scores * v.block(0, source, keys, size);
        }
    }
    return context;
}

}  // namespace llama
