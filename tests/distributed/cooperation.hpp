#pragma once

#include <support/solvers.hpp>

#include "residua/distributed.hpp"
#include "support/layer.hpp"

/// Work for ranks of any communicator, whose results tests compare.
namespace residua::test {

inline constexpr Index segments = 8;

/// Tokens that reach a layer of n features, in float.
struct Tokens {
    explicit Tokens(Index n, Index count, std::uint64_t seed)
        : layer(random_layer({.out = 1, .in = n, .tokens = count, .dead = {3}, .seed = seed})),
          x(layer.x.data.begin(), layer.x.data.end()),
          x_fp(layer.x_fp.data.begin(), layer.x_fp.data.end()) {}

    MatrixView<const float> rows(const std::vector<float>& values, Share tokens) const {
        return MatrixView<const float>(values.data() + tokens.first * layer.n, tokens.count, layer.n);
    }

    Layer layer;
    std::vector<float> x, x_fp;
};

/// The moments of this rank's tokens.
template <class C>
ShardedMoments<float, EigenBackend> shards_of(EigenBackend& cpu, C& ranks, const Tokens& tokens,
                                              Index segment_count = segments, bool reference = true,
                                              const Tokens* stream = nullptr) {
    const Share mine = share_of(segment_count, ranks.rank(), ranks.size());
    ShardedMoments<float, EigenBackend> sums(cpu, tokens.layer.n, {segment_count, mine});
    for (Index s = mine.first; s < mine.end(); ++s) {
        const Share part = share_of(tokens.layer.tokens, s, segment_count);
        if (part.count == 0) continue;
        if (stream) {
            sums.accumulate(s, tokens.rows(tokens.x, part), tokens.rows(tokens.x_fp, part),
                            ResidualStream{stream->rows(stream->x, part), stream->rows(stream->x_fp, part)});
        } else if (reference) {
            sums.accumulate(s, tokens.rows(tokens.x, part), tokens.rows(tokens.x_fp, part));
        } else {
            sums.accumulate(s, tokens.rows(tokens.x, part));
        }
    }
    return sums;
}

/// H, D and D_h, one behind the other; empty where there are no moments.
inline std::vector<float> bits_of(const std::optional<Moments<float, EigenBackend>>& moments) {
    std::vector<float> bits;
    if (!moments) return bits;
    for (const auto& matrix : {moments->gram(), moments->cross(), moments->stream_cross()}) {
        for (Index i = 0; i < matrix.rows; ++i)
            bits.insert(bits.end(), matrix.row(i), matrix.row(i) + matrix.cols);
    }
    bits.push_back(float(moments->tokens()));
    return bits;
}

template <class C>
std::vector<float> reduced(C& ranks, const Tokens& tokens, int to, Reduction reduction,
                           Index segment_count = segments) {
    EigenBackend cpu(Executor(1));
    auto shards = shards_of(cpu, ranks, tokens, segment_count);
    return bits_of(reduce(shards, ranks, to, reduction));
}

using Layers = std::vector<DistributedLayer<IntegerGrid, float>>;

/// A block's layers in three groups, of which some are split; the last one writes to the residual stream.
template <class M, class C>
Layers quantized(C& ranks, const SolverOptions& options, const DistributedOptions& distributed) {
    EigenBackend cpu(Executor(1));
    const Tokens attention(48, 240, 1), mlp(48, 240, 2), down(100, 240, 3), stream(48, 240, 8);
    const auto weights_of = [](Index rows, Index cols, std::uint64_t seed) {
        const auto values =
            random_layer({.out = rows, .in = cols, .tokens = 1, .dead = {}, .seed = seed}).w.data;
        return std::vector<float>(values.begin(), values.end());
    };
    const auto q = weights_of(50, 48, 4), k = weights_of(20, 48, 5), gate = weights_of(100, 48, 6),
               d = weights_of(48, 100, 7);
    auto sums = std::tuple(shards_of(cpu, ranks, attention), shards_of(cpu, ranks, mlp),
                           shards_of(cpu, ranks, down, segments, true, &stream));
    using Quantizer = DistributedQuantizer<float, EigenBackend, C>;
    using Group = typename Quantizer::template Group<float>;
    using Values = MatrixView<const float>;
    const std::vector<Group> groups = {
        {&std::get<0>(sums), {Values(q.data(), 50, 48), Values(k.data(), 20, 48)}},
        {&std::get<1>(sums), {Values(gate.data(), 100, 48)}},
        {&std::get<2>(sums), {Values(d.data(), 48, 100)}}};
    Quantizer quantizer(cpu, ranks, distributed);
    const IntegerGrid grid{.bits = 3};
    const auto solve = [&](const Moments<float, EigenBackend>& moments, Values rows, Index first) {
        const Solver<M, float, EigenBackend> solver(moments, options);
        return compiled::quantize_rows(solver, rows, first, grid);
    };
    Layers layers;
    for (auto& group : quantizer.template quantize<float>(groups, grid, options, M::residuals, solve))
        for (auto& layer : group) layers.push_back(std::move(layer));
    return layers;
}

/// Whether codes, scales, zeros and group indices are the same bits.
inline bool same_codes(const Layers& a, const Layers& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
        return x.report.status == y.report.status && x.layer.codes == y.layer.codes &&
               x.layer.scales == y.layer.scales && x.layer.zeros == y.layer.zeros &&
               x.layer.group_index == y.layer.group_index && x.layer.grid.bits == y.layer.grid.bits;
    });
}

}  // namespace residua::test
