#pragma once

#include <algorithm>
#include <map>

#include "weight_use.hpp"

/// One input of a model's graph, and the weights that read it: their moments are the same.
struct Reading {
    std::vector<std::string> weights;
    residua::Index features = 0;
    residua::Index matrices = 1;  ///< of each weight; every one has moments of its own
    std::size_t uses = 1;         ///< of each weight in the graph

    /// Where the only weight's output is added to the residual stream: the name of that stream's node in the graph.
    std::optional<std::string> stream = {};
};

/// What the weights of a model read, in the order of the computation, from the graph of a first text.
class ReadingPlan {
  public:
    /// For engine::Walk: nodes in the order in which they will be computed.
    void see(ggml_tensor* node) {
        nodes_.push_back(node);
        const auto use = WeightUse::of(node);
        if (!use) return;
        auto [at, is_new] = uses_.try_emplace(use->name());
        if (is_new) order_.push_back(use->name());
        at->second.inputs.push_back({use->input(), use->choices()});
        at->second.features = use->features();
        at->second.matrices = use->matrices();
        at->second.product = node;
    }

    /// When the graph has ended, whose tensors must still be there.
    std::vector<Reading> readings() const {
        std::vector<Reading> list;
        std::map<std::pair<Inputs, residua::Index>, std::size_t> known;
        for (const std::string& name : order_) {
            const Use& use = uses_.at(name);
            const auto [at, is_new] = known.try_emplace({use.inputs, use.matrices}, list.size());
            if (is_new)
                list.push_back({.weights = {},
                                .features = use.features,
                                .matrices = use.matrices,
                                .uses = use.inputs.size()});
            list[at->second].weights.push_back(name);
        }
        for (Reading& reading : list) {
            const Use& use = uses_.at(reading.weights.front());
            if (reading.weights.size() == 1 && reading.matrices == 1 && reading.uses == 1)
                reading.stream = stream_of(use.product);
        }
        return list;
    }

  private:
    using Inputs = std::vector<std::pair<const ggml_tensor*, const ggml_tensor*>>;
    struct Use {
        Inputs inputs;  // several where the graph has the weight several times
        residua::Index features = 0, matrices = 1;
        const ggml_tensor* product = nullptr;
    };

    static bool is_parameter(const ggml_tensor* t) {
        return t->op == GGML_OP_NONE && t->buffer &&
               ggml_backend_buffer_get_usage(t->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    }

    /// What y is added to as it is, but for a bias, another shape, and rows that are left out on both sides.
    std::optional<std::string> stream_of(const ggml_tensor* y) const {
        const ggml_tensor* kept_rows = nullptr;
        const auto position = [&](const ggml_tensor* node) {
            return std::find(nodes_.begin(), nodes_.end(), node);
        };
        const auto product = position(y);
        for (auto at = product + 1; at < nodes_.end(); ++at) {
            const ggml_tensor* node = *at;
            if (node->src[0] != y && node->src[1] != y) continue;
            const ggml_tensor* other = node->src[0] == y ? node->src[1] : node->src[0];
            if (node->op == GGML_OP_RESHAPE || (node->op == GGML_OP_ADD && is_parameter(other))) {
                y = node;
            } else if (node->op == GGML_OP_GET_ROWS && !kept_rows) {
                kept_rows = other;
                y = node;
            } else if (node->op == GGML_OP_ADD) {
                const bool is_left_out =
                    kept_rows && other->op == GGML_OP_GET_ROWS && other->src[1] == kept_rows;
                if (kept_rows && !is_left_out) return {};
                const auto stream = position(is_left_out ? other->src[0] : other);
                if (stream >= product) return {};  // not there yet when the product is computed
                return unique_name(*stream);
            } else {
                return {};
            }
        }
        return {};
    }

    /// Absent for a name that ggml has made up from a number, which differs from graph to graph.
    std::optional<std::string> unique_name(const ggml_tensor* node) const {
        const std::string name = node->name;
        const auto has_it = [&](const ggml_tensor* other) { return name == other->name; };
        const bool is_given = !name.empty() && !name.starts_with("node_");
        if (!is_given || std::count_if(nodes_.begin(), nodes_.end(), has_it) != 1) return {};
        return name;
    }

    std::vector<const ggml_tensor*> nodes_;
    std::vector<std::string> order_;
    std::map<std::string, Use> uses_;
};
