#pragma once

#include <barrier>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "residua/distributed/communicator.hpp"

namespace residua::test {

/// What threads of one process meet at.
struct Meeting {
    explicit Meeting(int ranks) : barrier(ranks), buffers(static_cast<std::size_t>(ranks)) {}

    std::barrier<> barrier;
    std::vector<const void*> buffers;
};

/// Ranks that are threads: a communicator with just what the concept lists.
class ThreadCommunicator {
  public:
    static constexpr bool reaches_device = false;

    ThreadCommunicator(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}

    int rank() const { return rank_; }
    int size() const { return int(meeting_.buffers.size()); }

    template <class U>
    void sum(std::span<U> values, int to) {
        std::vector<U> sums(values.size());
        meet(values.data(), [&] {
            for (int r = 0; r < size(); ++r)
                for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += of_rank<U>(r)[i];
        });
        const bool receives = to == every_rank || to == rank_;
        for (std::size_t i = 0; i < sums.size(); ++i) values[i] = receives ? sums[i] : U(-1);
    }

    template <class U>
    void broadcast(std::span<U> values, int from) {
        meet(values.data(), [&] {
            if (from != rank_) std::copy_n(of_rank<U>(from), values.size(), values.data());
        });
    }

    template <class U>
    void exchange(std::span<const U> out, std::span<U> in) {
        const std::size_t piece = out.size() / std::size_t(size());
        meet(out.data(), [&] {
            for (int r = 0; r < size(); ++r)
                std::copy_n(of_rank<U>(r) + std::size_t(rank_) * piece, piece,
                            in.data() + std::size_t(r) * piece);
        });
    }

    template <class U>
    void gather(std::span<const U> piece, std::span<U> all, int to) {
        meet(piece.data(), [&] {
            if (to != every_rank && to != rank_) return;
            for (int r = 0; r < size(); ++r)
                std::copy_n(of_rank<U>(r), piece.size(), all.data() + std::size_t(r) * piece.size());
        });
    }

    void abort(const std::string& message) { throw CommunicationError(rank_, message); }

  private:
    /// Everyone shows its buffer, looks at those of the others, and goes on when all have looked.
    template <class Look>
    void meet(const void* buffer, Look look) {
        meeting_.buffers[std::size_t(rank_)] = buffer;
        meeting_.barrier.arrive_and_wait();
        look();
        meeting_.barrier.arrive_and_wait();
    }

    template <class U>
    const U* of_rank(int rank) const {
        return static_cast<const U*>(meeting_.buffers[std::size_t(rank)]);
    }

    Meeting& meeting_;
    int rank_;
};

static_assert(Communicator<ThreadCommunicator>);

/// body(ranks) on every rank; the results in the order of the ranks.
template <class Ranks = ThreadCommunicator, class Body>
auto on_ranks(int count, Body body) {
    using Result = std::invoke_result_t<Body, Ranks&>;
    Meeting meeting(count);
    std::vector<Result> results(static_cast<std::size_t>(count));
    std::vector<std::thread> threads;
    for (int r = 0; r < count; ++r)
        threads.emplace_back([&, r] {
            Ranks ranks(meeting, r);
            results[std::size_t(r)] = body(ranks);
        });
    for (std::thread& thread : threads) thread.join();
    return results;
}

}  // namespace residua::test
