// Ranks of MPI: what they compute together is what one of them computes alone.

#include <algorithm>

#include "catch.hpp"
#include "distributed/cooperation.hpp"

using namespace residua;
using namespace residua::test;

namespace {

/// Long enough for the slowest machine, short enough for a test that hangs to end.
constexpr auto timeout = std::chrono::seconds(60);

MPICommunicator& ranks() {
    static auto* const communicator =
        new MPICommunicator(MPI_COMM_WORLD, timeout);  // MPI ends before statics
    return *communicator;
}

}  // namespace

TEST_CASE("MPICommunicator: sums, broadcasts, exchanges, gathers", "[mpi]") {
    const int size = ranks().size(), rank = ranks().rank();
    for (const int to : {every_rank, size - 1}) {
        std::vector<double> values = {double(rank), 1};
        ranks().sum(std::span(values), to);
        if (to == every_rank || to == rank)
            CHECK(values == std::vector<double>{size * (size - 1) / 2.0, double(size)});

        const std::vector<float> piece = {float(rank), float(rank) + 0.5f};
        std::vector<float> all(2 * std::size_t(size), -1);
        ranks().gather(std::span(piece), std::span(all), to);
        for (int r = 0; r < size; ++r) {
            const bool receives = to == every_rank || to == rank;
            CHECK(all[2 * std::size_t(r)] == (receives ? float(r) : -1));
            CHECK(all[2 * std::size_t(r) + 1] == (receives ? float(r) + 0.5f : -1));
        }
    }
    std::vector<std::byte> bytes(3, std::byte(rank));
    ranks().broadcast(std::span(bytes), size - 1);
    CHECK(bytes == std::vector<std::byte>(3, std::byte(size - 1)));

    std::vector<float> out;
    std::vector<float> in(static_cast<std::size_t>(size));
    for (int r = 0; r < size; ++r) out.push_back(float(10 * rank + r));
    ranks().exchange(std::span<const float>(out), std::span(in));
    for (int r = 0; r < size; ++r) CHECK(in[std::size_t(r)] == float(10 * r + rank));
}

TEST_CASE("Over MPI, ordered sums are the bits of one rank", "[mpi]") {
    const Tokens tokens(300, 301, 2);
    SelfCommunicator alone;
    const auto expected = reduced(alone, tokens, every_rank, Reduction::Ordered);
    CHECK(reduced(ranks(), tokens, every_rank, Reduction::Ordered) == expected);
    const auto on_last = reduced(ranks(), tokens, ranks().size() - 1, Reduction::Ordered);
    if (ranks().rank() == ranks().size() - 1) {
        CHECK(on_last == expected);
    } else {
        CHECK(on_last.empty());
    }
}

TEST_CASE("Over MPI, codes are those of one rank", "[mpi]") {
    const SolverOptions options{
        .group_size = 16, .ordering = Ordering::Activation, .refinement = {.rounds = 1}};
    const DistributedOptions distributed{.reduction = Reduction::Ordered, .piece_rows = 16};
    SelfCommunicator alone;
    CHECK(same_codes(quantized<GPTAQ>(ranks(), options, distributed),
                     quantized<GPTAQ>(alone, options, distributed)));
    CHECK(same_codes(quantized<QEP>(ranks(), options, distributed),
                     quantized<QEP>(alone, options, distributed)));
}
