#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "residua/distributed/pairwise_sum.hpp"
#include "residua/distributed/share.hpp"
#include "residua/solver/moments.hpp"

namespace residua {

/// The moments of one rank's tokens, on their way to the sum over all ranks, see reduce().
///
/// The calibration tokens are cut into `segments`, which are numbered in their order, and rank r of P accumulates
/// those of share_of(segments, r, P). What a segment sums up to depends on its own batches alone, and segments
/// are added up as a binary tree, whose order is the same whoever holds them. For Reduction::Ordered take a
/// fixed number of segments; more ranks than segments have nothing to do. For Reduction::Fast one segment a
/// rank is enough.
///
///     const auto mine = residua::share_of(segments, ranks.rank(), ranks.size());
///     residua::ShardedMoments<float, residua::EigenBackend> sums(cpu, in_features, {segments, mine});
///     for (Index s = mine.first; s < mine.end(); ++s) sums.accumulate(s, x_of(s), x_fp_of(s));
///     auto moments = residua::reduce(sums, ranks, owner, residua::Reduction::Ordered);
///
/// Keeps one pair H and D for each segment that is a power of two wide on the way, at most
/// log2(segments of this rank) + 2 of them.
template <Real T, Backend<T> B>
class ShardedMoments {
  public:
    using Sums = Moments<T, B>;

    /// The segments of all ranks, and those of this one.
    struct Segments {
        Index total = 1;
        Share mine = {0, 1};
    };

    /// `backend` must outlive the moments.
    ShardedMoments(B& backend, Index in_features, const Segments& segments)
        : backend_(&backend), n_(in_features), segments_(segments), next_(segments.mine.first) {
        require(in_features >= 1, "ShardedMoments: in_features is", in_features, "at least 1");
        require(segments.total >= 1, "ShardedMoments: segments.total is", segments.total, "at least 1");
        require(segments.mine.first >= 0 && segments.mine.count >= 0 && segments.mine.end() <= segments.total,
                "ShardedMoments: segments.mine ends at", segments.mine.end(),
                "within the " + std::to_string(segments.total) + " segments");
    }

    B& backend() const { return *backend_; }
    Index in_features() const { return n_; }
    const Segments& segments() const { return segments_; }

    /// Adds a batch of segment `segment`, see Moments::accumulate. Segments come in ascending order.
    template <class... Batch>
    void accumulate(Index segment, const Batch&... batch) {
        open(segment).accumulate(batch...);
    }

    /// The moments of segment `segment`, to accumulate into. Segments come in ascending order.
    Sums& open(Index segment) {
        require(segment >= next_ && segment < segments_.mine.end(), "ShardedMoments::open: segment is",
                segment, "one of this rank's, the last one or one behind it");
        if (!open_ || segment != next_) {
            close_until(segment);
            open_.emplace(*backend_, n_);
        }
        return *open_;
    }

    /// The sums so far as nodes of the tree over all segments, in ascending order; empty where a node has no
    /// token. Afterwards there are none.
    std::vector<std::optional<Sums>> take_nodes() {
        close_until(segments_.mine.end());
        std::vector<std::optional<Sums>> nodes;
        for (auto& part : tree_.parts()) nodes.push_back(std::move(part.value));
        tree_ = {};
        next_ = segments_.mine.first;
        return nodes;
    }

    static void add(std::optional<Sums>& a, std::optional<Sums>& b) {
        if (!b) return;
        if (a) {
            a->merge(*b);
        } else {
            a = std::move(b);
        }
    }

  private:
    /// Segments before `segment` are done.
    void close_until(Index segment) {
        for (; next_ < segment; ++next_) tree_.push({next_, 1}, std::exchange(open_, std::nullopt), add);
    }

    B* backend_;
    Index n_;
    Segments segments_;
    Index next_;  // the segment that is open, or would be
    std::optional<Sums> open_;
    detail::PairwiseSum<std::optional<Sums>> tree_;
};

}  // namespace residua
