#pragma once

#include <llama.h>

#include <optional>
#include <residua/core/view.hpp>
#include <string>
#include <vector>

/// A product of a graph with one weight tensor of the model, y = W x. The tensor may hold several matrices: of experts, of
/// which the graph says who reads what, or of heads, which take turns.
class WeightUse {
  public:
    using Index = residua::Index;

    /// Absent for a node that is none.
    static std::optional<WeightUse> of(ggml_tensor* node) {
        if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) return {};
        const ggml_tensor* weight = node->src[0];
        const ggml_tensor* input = node->src[1];
        const bool is_weight =
            weight->op == GGML_OP_NONE && weight->buffer &&
            ggml_backend_buffer_get_usage(weight->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
        if (!is_weight || input->type != GGML_TYPE_F32 || input->nb[0] != sizeof(float)) return {};
        return WeightUse(node);
    }

    ggml_tensor* product() const { return node_; }
    ggml_tensor* weight() const { return node_->src[0]; }
    const ggml_tensor* input() const { return node_->src[1]; }
    /// Which experts each token reads; null where tokens do not choose.
    const ggml_tensor* choices() const { return node_->op == GGML_OP_MUL_MAT_ID ? node_->src[2] : nullptr; }
    std::string name() const { return weight()->name; }

    Index features() const { return weight()->ne[0]; }
    Index matrices() const { return weight()->ne[2] * weight()->ne[3]; }

    /// One vector that a matrix reads: a token's in one of the places that a token has. Of the same two graphs of two
    /// models the places of heads are the same, those of experts are not.
    struct Place {
        Index token;
        Index place;
    };

    /// What matrix `m` reads. Once the input has been computed.
    std::vector<Place> places(Index m) const {
        std::vector<Place> found;
        if (const ggml_tensor* ids = choices()) {
            for (Index token = 0; token < ids->ne[1]; ++token)
                for (Index i = 0; i < ids->ne[0]; ++i)
                    if (chosen(token, i) == m) found.push_back({token, i});
            return found;
        }
        const Index repeats = input()->ne[2] * input()->ne[3];
        for (Index i = 0; i < repeats; ++i) {
            if (i % matrices() != m) continue;  // ggml broadcasts weights over what they do not have
            for (Index token = 0; token < input()->ne[1]; ++token) found.push_back({token, i});
        }
        return found;
    }

    /// The place where matrix `m` reads that token, absent if it does not.
    std::optional<Place> place_of(Index token, Index m) const {
        const ggml_tensor* ids = choices();
        for (Index i = 0; i < ids->ne[0]; ++i)
            if (chosen(token, i) == m) return Place{token, i};
        if (input()->ne[1] == 1) return Place{token, 0};  // all experts are offered the same
        return {};
    }

    const float* values(const Place& p) const {
        const ggml_tensor* x = input();
        const auto at = [&](Index i1, Index i2, Index i3) {
            return static_cast<std::size_t>(i1) * x->nb[1] + static_cast<std::size_t>(i2) * x->nb[2] +
                   static_cast<std::size_t>(i3) * x->nb[3];
        };
        const std::size_t offset = choices() ? at(p.place % x->ne[1], p.token, 0)
                                             : at(p.token, p.place % x->ne[2], p.place / x->ne[2]);
        return reinterpret_cast<const float*>(static_cast<const char*>(x->data) + offset);
    }

  private:
    explicit WeightUse(ggml_tensor* node) : node_(node) {}

    Index chosen(Index token, Index i) const {
        const ggml_tensor* ids = choices();
        const auto offset =
            static_cast<std::size_t>(token) * ids->nb[1] + static_cast<std::size_t>(i) * ids->nb[0];
        return *reinterpret_cast<const std::int32_t*>(static_cast<const char*>(ids->data) + offset);
    }

    ggml_tensor* node_;
};

/// Vectors of `use` at the given places, one below the other.
inline residua::Matrix<float> rows_at(const WeightUse& use, const std::vector<WeightUse::Place>& places) {
    residua::Matrix<float> rows(static_cast<residua::Index>(places.size()), use.features());
    for (std::size_t i = 0; i < places.size(); ++i)
        std::copy_n(use.values(places[i]), use.features(), rows.view().row(static_cast<residua::Index>(i)));
    return rows;
}
