#pragma once

#include <utility>
#include <vector>

#include "residua/core/types.hpp"

namespace residua::detail {

/// A node of a binary tree over leaves 0, 1, 2, ...: leaves [first, first + count), count a power of two and
/// `first` a multiple of it.
struct TreeNode {
    Index first = 0;
    Index count = 1;

    friend bool operator==(const TreeNode&, const TreeNode&) = default;
};

/// Sums up leaves, or nodes, in ascending order as their binary tree does: two nodes are added once they are
/// the halves of a node. The order of the additions depends on the leaves alone, not on who has added up which
/// of them before.
///
/// Keeps at most log2(leaves) + 1 values at a time.
template <class Value>
class PairwiseSum {
  public:
    struct Part {
        TreeNode node;
        Value value;
    };

    /// add(a, b) adds b to a.
    template <class Add>
    void push(TreeNode node, Value value, Add add) {
        parts_.push_back({node, std::move(value)});
        while (parts_.size() >= 2 && are_halves(parts_[parts_.size() - 2].node, parts_.back().node))
            merge_last(add);
    }

    /// The sum of all that was pushed, at least one leaf: nodes without a sibling from the last one down.
    template <class Add>
    Value& finish(Add add) {
        while (parts_.size() >= 2) merge_last(add);
        return parts_.back().value;
    }

    std::vector<Part>& parts() { return parts_; }

  private:
    static bool are_halves(TreeNode a, TreeNode b) {
        return a.count == b.count && a.first + a.count == b.first && a.first % (2 * a.count) == 0;
    }

    template <class Add>
    void merge_last(Add add) {
        Part last = std::move(parts_.back());
        parts_.pop_back();
        add(parts_.back().value, last.value);
        parts_.back().node.count += last.node.count;
    }

    std::vector<Part> parts_;
};

/// The nodes that leaves [first, first + count) add up to.
inline std::vector<TreeNode> tree_nodes(Index first, Index count) {
    PairwiseSum<int> sum;
    for (Index leaf = first; leaf < first + count; ++leaf) sum.push({leaf, 1}, 0, [](int, int) {});
    std::vector<TreeNode> nodes;
    for (const auto& part : sum.parts()) nodes.push_back(part.node);
    return nodes;
}

}  // namespace residua::detail
