#pragma once

#include <bit>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "residua/distributed/panels.hpp"
#include "residua/distributed/sharded_moments.hpp"

namespace residua {

/// How the sums of several ranks are added up.
///
/// A rank sends s elements, n^2/2 of H and, with reference inputs, n^2 of D, about once (to one rank) or twice
/// (to all) by either, where the number of ranks is a power of two.
enum class Reduction {
    /// By the engine, in an order of its own: bits depend on the number of ranks.
    Fast,
    /// As the binary tree over the segments of ShardedMoments: the same bits for any number of ranks. Costs the
    /// sums that a rank keeps on the way; s twice also to one rank; up to 2 log2(segments) s where the number
    /// of ranks is no power of two; and additions by the backend.
    Ordered,
};

namespace detail {

/// What all ranks must know of the sums of all.
template <class Sums>
struct SumsHeader {
    Index tokens = 0;
    typename Sums::Kind kind = {};
};

template <class Sums, Communicator C>
SumsHeader<Sums> agree(const std::vector<std::optional<Sums>>& nodes, Index n, C& ranks) {
    enum { Nodes, Tokens, References, Streams, StreamWidths, OtherSize, Facts };
    double facts[Facts] = {};
    double size[1] = {double(n)};
    ranks.broadcast(std::span<double>(size), 0);
    facts[OtherSize] = size[0] != double(n);
    for (const auto& sums : nodes) {
        if (!sums || sums->tokens() == 0) continue;
        const Index width = sums->kind().stream_width;
        facts[Nodes] += 1;
        facts[Tokens] += double(sums->tokens());
        facts[References] += sums->has_reference();
        facts[Streams] += width > 0;
        facts[StreamWidths] += double(width);
    }
    ranks.sum(std::span<double>(facts), every_rank);
    require(facts[OtherSize] == 0, "reduce: in_features is", n, "the same on every rank");
    const auto agree_on = [&](double have, const char* what) {
        require(have == 0 || have == facts[Nodes],
                std::string("reduce: ") + what + " of some ranks' moments is", "absent",
                "present on all ranks that have tokens, or on none");
    };
    agree_on(facts[References], "D, of reference inputs,");
    agree_on(facts[Streams], "D_h, of the residual stream,");
    const Index width = facts[Streams] > 0 ? Index(facts[StreamWidths] / facts[Streams]) : 0;
    double other[1] = {0};
    for (const auto& sums : nodes)
        other[0] += sums && sums->tokens() > 0 && sums->kind().stream_width != width;
    ranks.sum(std::span<double>(other), every_rank);
    require(other[0] == 0, "reduce: columns of the residual stream, on average:", width,
            "as many on every rank");
    return {Index(facts[Tokens]), {facts[References] > 0, width}};
}

/// The sum of matrices that ranks hold, rank r those at trees[r] of the tree over all; this rank's are `mine`,
/// where an empty view stands for zeros. On rank `to`, or on every_rank, `result` becomes the sum; it may be
/// one of `mine`.
///
/// Every rank adds up one piece of each packed list, for all.
template <Real T, Backend<T> B, Communicator C>
void ordered_sum(B& backend, C& ranks, const std::vector<std::vector<TreeNode>>& trees,
                 const std::vector<MatrixView<T>>& mine, MatrixView<T> result, const Panels& panels, int to) {
    using Buffer = PanelBuffer<T, B, C>;
    const Index count = ranks.size();
    const Index padded = (panels.buffer_size() + count - 1) / count * count;
    std::size_t most = 0;
    for (const auto& nodes : trees) most = std::max(most, nodes.size());
    Buffer out(backend, padded);
    Buffer sum(backend, padded / count);
    std::vector<Buffer> in;
    for (std::size_t k = 0; k < most; ++k) in.emplace_back(backend, padded);

    for (const auto& list : panels.lists()) {
        const Index piece = (Panels::used(list) + count - 1) / count;
        for (std::size_t k = 0; k < most; ++k) {
            if (k < mine.size() && mine[k].data) {
                out.pack(mine[k], list);
            } else {
                out.clear();
            }
            ranks.exchange(std::span<const T>(out.values(piece * count)), in[k].values(piece * count));
        }
        struct Place {
            Buffer* buffer;
            Index at;
        };
        PairwiseSum<Place> tree;
        const auto add = [&](const Place& a, const Place& b) { a.buffer->add(a.at, *b.buffer, b.at, piece); };
        for (std::size_t r = 0; r < trees.size(); ++r) {
            for (std::size_t k = 0; k < trees[r].size(); ++k)
                tree.push(trees[r][k], {&in[k], Index(r) * piece}, add);
        }
        const Place total = tree.finish(add);
        sum.clear();
        sum.add(0, *total.buffer, total.at, piece);
        ranks.gather(std::span<const T>(sum.values(piece)), out.values(piece * count), to);
        if (to == every_rank || to == ranks.rank()) out.unpack(list, result);
    }
}

/// The same in the order of the engine; this rank's matrix is `matrix`.
template <Real T, Backend<T> B, Communicator C>
void fast_sum(B& backend, C& ranks, MatrixView<T> matrix, const Panels& panels, int to) {
    PanelBuffer<T, B, C> buffer(backend, panels.buffer_size());
    for (const auto& list : panels.lists()) {
        buffer.pack(matrix, list);
        ranks.sum(buffer.values(Panels::used(list)), to);
        if (to == every_rank || to == ranks.rank()) buffer.unpack(list, matrix);
    }
}

/// The sum of the nodes of all ranks, rank r's at trees[r]; empty on ranks that are not `to`.
template <Real T, Backend<T> B, Communicator C>
std::optional<Moments<T, B>> reduce_nodes(B& backend, Index n,
                                          std::vector<std::optional<Moments<T, B>>> nodes,
                                          const std::vector<std::vector<TreeNode>>& trees, C& ranks, int to,
                                          Reduction reduction) {
    using Sums = Moments<T, B>;
    require(to >= every_rank && to < ranks.size(), "reduce: to is", to, "a rank, or every_rank");
    const bool receives = to == every_rank || to == ranks.rank();
    if (ranks.size() == 1 || reduction == Reduction::Fast) {
        PairwiseSum<std::optional<Sums>> sum;
        const auto& tree = trees[std::size_t(ranks.rank())];
        for (std::size_t k = 0; k < tree.size(); ++k)
            sum.push(tree[k], std::move(nodes[k]), ShardedMoments<T, B>::add);
        nodes.clear();
        nodes.push_back(sum.parts().empty() ? std::nullopt
                                            : std::move(sum.finish(ShardedMoments<T, B>::add)));
        if (!nodes[0]) nodes[0].emplace(backend, n);
        if (ranks.size() == 1) return std::move(nodes[0]);
    }
    const SumsHeader<Sums> header = agree(nodes, n, ranks);
    if (nodes.empty()) nodes.emplace_back();
    if (!nodes[0] && receives) nodes[0].emplace(backend, n);

    std::vector<MatrixView<T>> grams, crosses, streams;
    for (auto& sums : nodes) {
        for (auto* list : {&grams, &crosses, &streams}) list->emplace_back();
        if (!sums) continue;
        sums->replace(header.tokens, header.kind, [&](auto gram, auto cross, auto stream) {
            grams.back() = gram;
            crosses.back() = cross;
            streams.back() = stream;
        });
    }
    const auto sum_up = [&](const std::vector<MatrixView<T>>& mine, const Panels& panels) {
        if (reduction == Reduction::Fast) {
            fast_sum(backend, ranks, mine[0], panels, to);
        } else {
            ordered_sum(backend, ranks, trees, mine, mine[0], panels, to);
        }
    };
    sum_up(grams, Panels(n, n, MatrixPart::UpperTriangle));
    if (header.kind.reference) sum_up(crosses, Panels(n, n, MatrixPart::All));
    if (header.kind.stream_width > 0) sum_up(streams, Panels(header.kind.stream_width, n, MatrixPart::All));
    if (!receives) return {};
    return std::move(nodes[0]);
}

}  // namespace detail

/// The sum over all ranks on rank `to`, or on every_rank; empty elsewhere. `shards` are empty afterwards.
///
/// Sends the upper triangle of H, D and D_h where there are reference inputs and the residual stream, and the
/// number of tokens. Throws
/// std::invalid_argument where ranks disagree about in_features or reference inputs, and what the communicator
/// throws. Collective.
template <Real T, Backend<T> B, Communicator C>
[[nodiscard]] std::optional<Moments<T, B>> reduce(ShardedMoments<T, B>& shards, C& ranks, int to,
                                                  Reduction reduction) {
    const Index total = shards.segments().total;
    std::vector<std::vector<detail::TreeNode>> trees;
    for (int r = 0; r < ranks.size(); ++r) {
        const Share mine = share_of(total, r, ranks.size());
        trees.push_back(detail::tree_nodes(mine.first, mine.count));
    }
    require(share_of(total, ranks.rank(), ranks.size()) == shards.segments().mine,
            "reduce: the first of this rank's segments is", shards.segments().mine.first,
            "those of share_of(segments, rank, ranks)");
    return detail::reduce_nodes(shards.backend(), shards.in_features(), shards.take_nodes(), trees, ranks, to,
                                reduction);
}

/// Makes `moments` of every rank the sum over all ranks: the upper triangle of H, D, D_h and the number of tokens
/// are sent, never the tokens. By Reduction::Ordered the ranks' sums are the leaves of the tree, so that the same
/// bits come of any engine; for any number of ranks see ShardedMoments. Throws as reduce() does. Collective.
template <Real T, Backend<T> B, Communicator C>
void all_reduce(Moments<T, B>& moments, C& ranks, Reduction reduction = Reduction::Fast) {
    std::vector<std::vector<detail::TreeNode>> trees;
    for (Index r = 0; r < ranks.size(); ++r) trees.push_back({{r, 1}});
    std::vector<std::optional<Moments<T, B>>> nodes;
    B& backend = moments.backend();
    const Index n = moments.in_features();
    nodes.emplace_back(std::move(moments));
    moments = *detail::reduce_nodes(backend, n, std::move(nodes), trees, ranks, every_rank, reduction);
}

}  // namespace residua
