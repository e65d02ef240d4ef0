// Who solves what, for models as large as there are.

#include "catch.hpp"
#include "residua/distributed/pairwise_sum.hpp"
#include "residua/distributed/solve_plan.hpp"

using namespace residua;

namespace {

using Groups = std::vector<GroupShape>;

/// `blocks` blocks of q k v | o | gate up | down.
Groups llama(Index blocks, Index hidden, Index key_value, Index intermediate) {
    Groups groups;
    for (Index b = 0; b < blocks; ++b) {
        groups.push_back({hidden, {hidden, key_value, key_value}});
        groups.push_back({hidden, {hidden}});
        groups.push_back({hidden, {intermediate, intermediate}});
        groups.push_back({intermediate, {hidden}});
    }
    return groups;
}

/// One block of DeepSeek-V3, 671 billion parameters in all: attention with low rank, 256 experts and a shared one.
Groups deepseek_block() {
    Groups groups = {{7168, {1536, 576}}, {1536, {24576}}, {512, {32768}}, {16384, {7168}}};
    for (int expert = 0; expert < 257; ++expert) {
        groups.push_back({7168, {2048, 2048}});
        groups.push_back({2048, {7168}});
    }
    return groups;
}

const std::vector<Residuals> kinds = {Residuals::None, Residuals::OfColumnsBefore, Residuals::OfAllColumns};

}  // namespace

TEST_CASE("SolvePlan: every row is solved once, within its layer's granules", "[distributed]") {
    const Groups groups = {{64, {100, 3}}, {32, {64}}, {200, {70}}};
    for (const int ranks : {1, 2, 3, 4, 16}) {
        for (const Residuals kind : kinds) {
            const SolvePlan plan(groups, SolveCost::of(kind), ranks, 16);
            std::vector<std::vector<Index>> done;
            for (const auto& g : groups) done.emplace_back(g.out_features.size(), 0);
            for (const RowTask& task : plan.tasks()) {
                INFO(ranks << " ranks, group " << task.group << ", layer " << task.layer);
                CHECK(task.rank >= 0);
                CHECK(task.rank < ranks);
                CHECK(task.rows.first == done[task.group][task.layer]);
                CHECK(task.rows.first % 16 == 0);
                CHECK(task.rows.count > 0);
                if (!plan.is_split(task.group)) CHECK(task.rank == plan.owner(task.group));
                done[task.group][task.layer] = task.rows.end();
            }
            for (std::size_t g = 0; g < groups.size(); ++g) CHECK(done[g] == groups[g].out_features);
        }
    }
}

TEST_CASE("SolvePlan: the largest share is within 1.2 of the mean", "[distributed]") {
    const std::vector<std::pair<std::string, Groups>> models = {
        {"Llama-3-8B", llama(32, 4096, 1024, 14336)},
        {"Llama-3-405B", llama(126, 16384, 1024, 53248)},
        {"a block of DeepSeek-V3", deepseek_block()}};
    for (const auto& [name, groups] : models) {
        for (const int ranks : {1, 2, 3, 4, 8}) {
            for (const Residuals kind : kinds) {
                INFO(name << " on " << ranks << " ranks");
                CHECK(SolvePlan(groups, SolveCost::of(kind), ranks, 2048).largest_share() <= 1.2);
            }
        }
    }
    // One block alone has one layer that takes two thirds of its time: it is split.
    const Groups block = llama(1, 4096, 1024, 14336);
    for (const Residuals kind : kinds) {
        const SolvePlan plan(block, SolveCost::of(kind), 2, 2048);
        CHECK(plan.is_split(3));
        CHECK_FALSE(plan.is_split(0));
        CHECK(plan.largest_share() <= 1.2);
    }
    // A Cholesky factorization is not.
    CHECK(SolvePlan(block, SolveCost::of(Residuals::None), 8, 2048).largest_share() > 1.2);
    // Nor are rows where the parts would take as long as the whole; those that are left are still divided.
    for (const Residuals kind : kinds) {
        const SolveCost cost = SolveCost::of(kind, {}, 4096);
        const SolvePlan two(block, cost, 2, 2048);
        CHECK_FALSE(two.is_split(3));
        for (int group : {0, 1, 2}) CHECK(two.owner(std::size_t(group)) != two.owner(3));
        CHECK(SolvePlan({{4096, {14336}}}, cost, 2, 2048, 1).is_split(0));
    }
}

TEST_CASE("PairwiseSum: the order of additions does not depend on who holds the leaves", "[distributed]") {
    using Text = std::string;
    const auto add = [](Text& a, const Text& b) { a = "(" + a + b + ")"; };
    for (const Index leaves : {1, 2, 5, 8, 13}) {
        const auto leaf = [](Index i) { return Text(1, char('a' + i)); };
        detail::PairwiseSum<Text> alone;
        for (Index i = 0; i < leaves; ++i) alone.push({i, 1}, leaf(i), add);
        const Text expected = alone.finish(add);
        if (leaves == 5) CHECK(expected == "(((ab)(cd))e)");
        for (Index ranks = 1; ranks <= leaves + 1; ++ranks) {
            detail::PairwiseSum<Text> all;
            for (Index r = 0; r < ranks; ++r) {
                const Share mine = share_of(leaves, r, ranks);
                detail::PairwiseSum<Text> own;
                for (Index i = mine.first; i < mine.end(); ++i) own.push({i, 1}, leaf(i), add);
                const auto nodes = detail::tree_nodes(mine.first, mine.count);
                REQUIRE(nodes.size() == own.parts().size());
                for (std::size_t k = 0; k < nodes.size(); ++k) {
                    CHECK(nodes[k] == own.parts()[k].node);
                    all.push(nodes[k], own.parts()[k].value, add);
                }
            }
            CHECK(all.finish(add) == expected);
        }
    }
}

TEST_CASE("share_of: runs of neighbours, as equal as can be", "[distributed]") {
    for (const Index items : {0, 1, 7, 64}) {
        for (const Index parts : {1, 3, 8}) {
            Index next = 0;
            for (Index p = 0; p < parts; ++p) {
                const Share share = share_of(items, p, parts);
                CHECK(share.first == next);
                CHECK(share.count >= items / parts);
                CHECK(share.count <= (items + parts - 1) / parts);
                next = share.end();
            }
            CHECK(next == items);
        }
    }
}
