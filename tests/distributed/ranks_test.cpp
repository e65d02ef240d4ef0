// Ranks that are threads: what they compute together is what one of them computes alone.

#include "catch.hpp"
#include "distributed/cooperation.hpp"
#include "distributed/thread_communicator.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// Rounding of sums over some hundred tokens in float, relative to the largest of them.
constexpr double sum_within = 1e-5;

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return 1;
    double worst = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::abs(double(a[i]) - double(b[i])));
        size = std::max(size, std::abs(double(b[i])));
    }
    return worst / size;
}

/// H and D of all tokens, by plain sums.
std::vector<float> plain_sums(const Tokens& tokens) {
    const auto expected = reference::moments(tokens.layer.x, tokens.layer.x_fp);
    std::vector<float> values(expected.h.data.begin(), expected.h.data.end());
    values.insert(values.end(), expected.d.data.begin(), expected.d.data.end());
    values.push_back(float(tokens.layer.tokens));
    return values;
}

const std::vector<int> rank_counts = {1, 2, 3, 4, 8, 11};

/// Counts the elements that it is handed, but for a few of bookkeeping.
class CountingCommunicator : public ThreadCommunicator {
  public:
    using ThreadCommunicator::ThreadCommunicator;

    template <class U>
    void sum(std::span<U> values, int to) {
        if (sizeof(U) == 4) summed += double(values.size());
        ThreadCommunicator::sum(values, to);
    }

    template <class U>
    void exchange(std::span<const U> out, std::span<U> in) {
        exchanged += double(out.size());
        ThreadCommunicator::exchange(out, in);
    }

    template <class U>
    void gather(std::span<const U> piece, std::span<U> all, int to) {
        gathered += double(piece.size());
        ThreadCommunicator::gather(piece, all, to);
    }

    double summed = 0, exchanged = 0, gathered = 0;
};

}  // namespace

TEST_CASE("reduce: sums of all ranks, on one or on all of them", "[distributed]") {
    const Tokens tokens(70, 301, 1);
    const std::vector<float> expected = plain_sums(tokens);
    for (const int count : rank_counts) {
        for (const Reduction reduction : {Reduction::Fast, Reduction::Ordered}) {
            for (const int to : {every_rank, 0, count - 1}) {
                const auto sums =
                    on_ranks(count, [&](auto& ranks) { return reduced(ranks, tokens, to, reduction); });
                for (int r = 0; r < count; ++r) {
                    INFO(count << " ranks, to " << to << ", on " << r);
                    if (to == every_rank || to == r) {
                        CHECK(distance(sums[std::size_t(r)], expected) <= sum_within);
                    } else {
                        CHECK(sums[std::size_t(r)].empty());
                    }
                }
            }
        }
    }
}

TEST_CASE("reduce: ordered sums are the same bits for any number of ranks", "[distributed]") {
    for (const Index segment_count : {8, 5}) {
        for (const Index token_count : {301, 3}) {  // 3: some segments have no token
            const Tokens tokens(70, token_count, 2);
            SelfCommunicator alone;
            const auto expected = reduced(alone, tokens, every_rank, Reduction::Ordered, segment_count);
            CHECK(distance(expected, plain_sums(tokens)) <= sum_within);
            for (const int count : rank_counts) {
                INFO(count << " ranks, " << segment_count << " segments, " << token_count << " tokens");
                const auto sums = on_ranks(count, [&](auto& ranks) {
                    return reduced(ranks, tokens, every_rank, Reduction::Ordered, segment_count);
                });
                for (const auto& sum : sums) CHECK(sum == expected);
            }
        }
    }
}

TEST_CASE("reduce: what is sent is what docs/distributed.md says", "[distributed]") {
    constexpr Index n = 256;
    const Tokens tokens(n, 64, 6);
    const double least = n * n / 2.0 + n * n;                      // H and D
    const double most = n * n / 2.0 * (1 + 2 / 16.0) + n * n + 8;  // panels of n / 16 rows, whole pieces
    for (const int count : {2, 4}) {
        for (const Reduction reduction : {Reduction::Fast, Reduction::Ordered}) {
            const auto counts = on_ranks<CountingCommunicator>(count, [&](auto& ranks) {
                reduced(ranks, tokens, 0, reduction);
                return std::vector<double>{ranks.summed, ranks.exchanged, count * ranks.gathered};
            });
            for (const auto& sent : counts) {
                const bool ordered = reduction == Reduction::Ordered;
                for (std::size_t i = 0; i < 3; ++i) {
                    INFO(count << " ranks, " << i);
                    CHECK(sent[i] >= (ordered == (i > 0) ? least : 0));
                    CHECK(sent[i] <= (ordered == (i > 0) ? most : 0));
                }
            }
        }
    }
}

TEST_CASE("all_reduce: moments become those of all ranks", "[distributed]") {
    const Tokens tokens(33, 200, 3);
    for (const Reduction reduction : {Reduction::Fast, Reduction::Ordered}) {
        const auto sums = on_ranks(3, [&](auto& ranks) {
            EigenBackend cpu(Executor(1));
            std::optional<Moments<float, EigenBackend>> moments(std::in_place, cpu, 33);
            const Share mine = share_of(200, ranks.rank(), 3);
            moments->accumulate(tokens.rows(tokens.x, mine), tokens.rows(tokens.x_fp, mine));
            all_reduce(*moments, ranks, reduction);
            return bits_of(moments);
        });
        for (const auto& sum : sums) {
            CHECK(distance(sum, plain_sums(tokens)) <= sum_within);
            CHECK(sum == sums[0]);
        }
    }
}

TEST_CASE("reduce: ranks that disagree are told so, all of them", "[distributed]") {
    const Tokens tokens(20, 64, 4), wider(21, 64, 4);
    const auto sizes = on_ranks(2, [&](auto& ranks) {
        return message_of([&] { reduced(ranks, ranks.rank() == 0 ? tokens : wider, 0, Reduction::Fast); });
    });
    CHECK(contains(sizes[0], "reduce: in_features is 20, expected the same on every rank"));
    CHECK(contains(sizes[1], "reduce: in_features is 21"));
    const auto references = on_ranks(2, [&](auto& ranks) {
        EigenBackend cpu(Executor(1));
        auto shards = shards_of(cpu, ranks, tokens, segments, ranks.rank() == 0);
        return message_of([&] { (void)reduce(shards, ranks, 0, Reduction::Fast); });
    });
    for (const auto& text : references)
        CHECK(contains(text, "D, of reference inputs, of some ranks' moments is absent"));
}

TEST_CASE("What is wrong with the arguments of collective calls is said by name", "[distributed]") {
    using Sums = ShardedMoments<float, EigenBackend>;
    EigenBackend cpu(Executor(1));
    SelfCommunicator alone;
    const auto sharded = [&](Index features, const Sums::Segments& segments_of_rank) {
        return message_of([&] { Sums(cpu, features, segments_of_rank); });
    };
    CHECK(contains(sharded(0, {}), "ShardedMoments: in_features is 0"));
    CHECK(contains(sharded(5, {0, {0, 0}}), "segments.total is 0"));
    CHECK(contains(sharded(5, {2, {-1, 1}}), "segments.mine ends at 0"));
    CHECK(contains(sharded(5, {2, {0, -1}}), "segments.mine ends at -1"));
    for (const int to : {-2, 1}) {
        Sums sums(cpu, 5, {1, {0, 1}});
        CHECK(contains(message_of([&] { (void)reduce(sums, alone, to, Reduction::Fast); }),
                       "reduce: to is " + std::to_string(to) + ", expected a rank"));
        std::vector<float> values(3);
        CHECK(contains(message_of([&] { alone.sum(std::span<float>(values), to); }),
                       "SelfCommunicator::sum: to is"));
        if (to != every_rank)
            CHECK(contains(message_of([&] { alone.broadcast(std::span<float>(values), to); }),
                           "SelfCommunicator::broadcast: from is"));
    }
    std::vector<float> three(3), two(2);
    CHECK(contains(message_of([&] { alone.exchange(std::span<const float>(three), std::span<float>(two)); }),
                   "SelfCommunicator::exchange: values to receive: 2, expected 3"));
    CHECK(contains(message_of([&] { alone.gather(std::span<const float>(three), std::span<float>(two), 0); }),
                   "SelfCommunicator::gather: values to receive: 2, expected 3"));
    CHECK(contains(message_of([&] { alone.set_timeout(std::chrono::duration<double>(0)); }), "timeout is 0"));
}

TEST_CASE("ShardedMoments: segments in order, of this rank alone", "[distributed]") {
    EigenBackend cpu(Executor(1));
    const Tokens tokens(5, 8, 5);
    const auto x = tokens.rows(tokens.x, {0, 8});
    ShardedMoments<float, EigenBackend> sums(cpu, 5, {4, {1, 2}});
    CHECK(contains(message_of([&] { sums.accumulate(0, x); }), "segment is 0"));
    sums.accumulate(2, x);
    sums.accumulate(2, x);
    CHECK(contains(message_of([&] { sums.accumulate(1, x); }), "segment is 1"));
    CHECK(contains(message_of([&] { sums.accumulate(3, x); }), "segment is 3"));
    CHECK(contains(message_of([&] {
                       ShardedMoments<float, EigenBackend>(cpu, 5, {4, {3, 2}});
                   }),
                   "ends at 5"));
}

TEMPLATE_TEST_CASE("DistributedQuantizer: the same codes for any number of ranks", "[distributed]", GPTQ,
                   GPTAQ, QEP) {
    const auto order = GENERATE(Ordering::Natural, Ordering::Activation);
    const int rounds = GENERATE(0, 1);
    const SolverOptions options{
        .group_size = 16, .ordering = order, .refinement = {.rounds = rounds}, .report_objective = true};
    const DistributedOptions distributed{.reduction = Reduction::Ordered, .piece_rows = 16};
    SelfCommunicator alone;
    const Layers expected = quantized<TestType>(alone, options, distributed);
    REQUIRE(expected.size() == 4);
    for (const int count : {2, 3, 5}) {
        const auto results =
            on_ranks(count, [&](auto& ranks) { return quantized<TestType>(ranks, options, distributed); });
        for (const Layers& layers : results) {
            INFO(TestType::name << " on " << count << " ranks");
            CHECK(same_codes(layers, expected));
            for (std::size_t i = 0; i < layers.size(); ++i) {
                const Report &a = layers[i].report, &b = expected[i].report;
                CHECK(a.tokens == b.tokens);
                CHECK(a.damping == b.damping);
                CHECK(a.dead_columns == b.dead_columns);
                CHECK(a.achieved().value() == Approx(b.achieved().value()));
                CHECK(a.refinement.size() == b.refinement.size());
                if (rounds > 0) CHECK(a.refinement.back().objective == Approx(b.refinement.back().objective));
            }
        }
    }
}

TEST_CASE("DistributedQuantizer: alone and in one piece it is the solver", "[distributed]") {
    const SolverOptions options{.group_size = 16};
    SelfCommunicator alone;
    const Layers layers = quantized<QEP>(alone, options, {});
    EigenBackend cpu(Executor(1));
    const Tokens tokens(48, 240, 2);
    auto shards = shards_of(cpu, alone, tokens);
    const auto moments = reduce(shards, alone, 0, Reduction::Fast);
    const auto w = random_layer({.out = 100, .in = 48, .tokens = 1, .dead = {}, .seed = 6}).w.data;
    const std::vector<float> values(w.begin(), w.end());
    const Solver<QEP, float, EigenBackend> solver(*moments, options);
    const auto q =
        compiled::quantize(solver, MatrixView<const float>(values.data(), 100, 48), IntegerGrid{.bits = 3});
    CHECK(layers[2].layer.codes == q.to_host(cpu).codes);
    CHECK(layers[2].layer.scales == q.to_host(cpu).scales);

    // In pieces products are cut elsewhere, which a code in a thousand may see.
    const Layers pieces = quantized<QEP>(alone, options, {.reduction = Reduction::Ordered, .piece_rows = 16});
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const auto& codes = layers[i].layer.codes;
        CHECK(differences(codes, pieces[i].layer.codes) <= codes.size() / 1000);
    }
}

TEST_CASE("DistributedQuantizer: layers one after the other share what was sent", "[distributed]") {
    const Tokens tokens(48, 240, 1);
    const auto w = random_layer({.out = 60, .in = 48, .tokens = 1, .dead = {}, .seed = 4}).w.data;
    const std::vector<float> values(w.begin(), w.end());
    const SolverOptions options{.group_size = 16};
    const auto solve_all = [&](auto& ranks) {
        EigenBackend cpu(Executor(1));
        auto shards = shards_of(cpu, ranks, tokens);
        const auto moments = reduce(shards, ranks, every_rank, Reduction::Ordered);
        DistributedQuantizer quantizer(
            cpu, ranks,
            moments->tokens() > 0 ? DistributedOptions{Reduction::Ordered, 16} : DistributedOptions{});
        Layers layers;
        const IntegerGrid grid{.bits = 3};
        for (const Index rows : {60, 20}) {
            layers.push_back(quantizer.template quantize_layer<float>(
                *moments, MatrixView<const float>(values.data(), rows, 48), grid, options, GPTAQ::residuals,
                [&](const Moments<float, EigenBackend>& sums, MatrixView<const float> part, Index first) {
                    const Solver<GPTAQ, float, EigenBackend> solver(sums, options);
                    return compiled::quantize_rows(solver, part, first, grid);
                }));
        }
        return layers;
    };
    SelfCommunicator alone;
    const Layers expected = solve_all(alone);
    for (const int count : {2, 4})
        for (const Layers& layers : on_ranks(count, solve_all)) CHECK(same_codes(layers, expected));
}

TEST_CASE("DistributedQuantizer: a layer that one rank cannot solve is reported by all", "[distributed]") {
    const Tokens tokens(24, 100, 1);
    std::vector<float> values(40 * 24, 0.5f);
    values[39 * 24] = std::numeric_limits<float>::infinity();
    const auto statuses = on_ranks(3, [&](auto& ranks) {
        EigenBackend cpu(Executor(1));
        auto shards = shards_of(cpu, ranks, tokens);
        using Quantizer = DistributedQuantizer<float, EigenBackend, ThreadCommunicator>;
        Quantizer quantizer(cpu, ranks, {.piece_rows = 8, .largest_share = 1});
        const std::vector<Quantizer::Group<float>> groups = {
            {&shards,
             {MatrixView<const float>(values.data(), 40, 24),
              MatrixView<const float>(values.data(), 39, 24)}}};
        const auto layers = quantizer.quantize<float>(groups, IntegerGrid{}, {}, GPTQ{});
        CHECK(layers[0][0].layer.codes.empty());
        CHECK(layers[0][1].layer.codes.size() == 39 * 24);
        return std::pair(layers[0][0].report.status, layers[0][1].report.status);
    });
    for (const auto& status : statuses) CHECK(status == std::pair(Status::NonFiniteWeights, Status::Success));
}
