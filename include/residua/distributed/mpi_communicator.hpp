#pragma once

// The C++ bindings that MPI has dropped would make programs link a library more.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <climits>
#include <cstdio>
#include <exception>
#include <thread>
#include <type_traits>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"
#include "residua/distributed/communicator.hpp"

namespace residua {

/// MPI from here to the end of the scope, unless it runs already. A scope that an exception leaves ends all
/// ranks: MPI_Finalize would wait for them.
class MPIEnvironment {
  public:
    MPIEnvironment(int& argc, char**& argv) {
        MPI_Initialized(&was_running_);
        if (was_running_) return;
        int provided = 0;
        MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    }
    MPIEnvironment(const MPIEnvironment&) = delete;
    MPIEnvironment& operator=(const MPIEnvironment&) = delete;
    ~MPIEnvironment() {
        if (was_running_) return;
        if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, 1);
        MPI_Finalize();
    }

  private:
    int was_running_ = 0;
    int exceptions_ = std::uncaught_exceptions();
};

/// Ranks of an MPI communicator, whose buffers are in host memory. Needs MPI 3.
///
/// Makes a communicator of its own of the given one, so that its messages meet no others. MPI must run while
/// this exists, see MPIEnvironment; one thread of a rank calls at a time, the one that initialized MPI unless
/// that asked for more.
///
///     residua::MPIEnvironment environment(argc, argv);
///     residua::MPICommunicator ranks;
///     residua::all_reduce(moments, ranks);
///
/// A rank that dies is for mpirun to notice, which ends the others at once. One that hangs is noticed by those
/// who wait for it: after `timeout` an operation throws CommunicationError. Take one that is longer than what a
/// rank may compute while others wait. MPI may still write to the buffers of an operation that has thrown: what
/// is left to do is abort().
class MPICommunicator {
  public:
    static constexpr bool reaches_device = false;

    explicit MPICommunicator(MPI_Comm ranks = MPI_COMM_WORLD,
                             std::chrono::duration<double> timeout = std::chrono::minutes(10)) {
        set_timeout(timeout);
        check(MPI_Comm_dup(ranks, &ranks_), "MPI_Comm_dup");
        check(MPI_Comm_set_errhandler(ranks_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
        check(MPI_Comm_rank(ranks_, &rank_), "MPI_Comm_rank");
        check(MPI_Comm_size(ranks_, &size_), "MPI_Comm_size");
    }
    MPICommunicator(const MPICommunicator&) = delete;
    MPICommunicator& operator=(const MPICommunicator&) = delete;

    /// Waits for nobody unless all is well: ranks that another one has left cannot free it together.
    ~MPICommunicator() {
        if (std::uncaught_exceptions() == 0) MPI_Comm_free(&ranks_);
    }

    void set_timeout(std::chrono::duration<double> timeout) {
        detail::require_timeout(name, timeout);
        timeout_ = timeout;
    }

    int rank() const { return rank_; }
    int size() const { return size_; }

    /// The number of this rank among those of the same host, to choose a GPU by. Collective.
    int local_rank() {
        MPI_Comm host = MPI_COMM_NULL;
        int local = 0;
        check(MPI_Comm_split_type(ranks_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host),
              "MPI_Comm_split_type");
        check(MPI_Comm_rank(host, &local), "MPI_Comm_rank");
        check(MPI_Comm_free(&host), "MPI_Comm_free");
        return local;
    }

    template <Real U>
    void sum(std::span<U> values, int to) {
        detail::require_receiver(name, "sum", to, size_);
        in_pieces("a sum", values, [&](U* data, int count, MPI_Request* request) {
            if (to == every_rank)
                return MPI_Iallreduce(MPI_IN_PLACE, data, count, type<U>(), MPI_SUM, ranks_, request);
            if (to == rank_)
                return MPI_Ireduce(MPI_IN_PLACE, data, count, type<U>(), MPI_SUM, to, ranks_, request);
            return MPI_Ireduce(data, nullptr, count, type<U>(), MPI_SUM, to, ranks_, request);
        });
    }

    template <class U>
    void broadcast(std::span<U> values, int from) {
        detail::require_sender(name, from, size_);
        in_pieces("a broadcast", values, [&](U* data, int count, MPI_Request* request) {
            return MPI_Ibcast(data, count, type<U>(), from, ranks_, request);
        });
    }

    template <Real U>
    void exchange(std::span<const U> out, std::span<U> in) {
        const int count = piece_of("exchange", out.size(), in.size());
        require(out.size() == in.size(), "MPICommunicator::exchange: elements of in:", in.size(),
                std::to_string(out.size()) + ", as many as in out");
        MPI_Request request;
        check(MPI_Ialltoall(out.data(), count, type<U>(), in.data(), count, type<U>(), ranks_, &request),
              "MPI_Ialltoall");
        wait(request, "an exchange");
    }

    template <Real U>
    void gather(std::span<const U> piece, std::span<U> all, int to) {
        detail::require_receiver(name, "gather", to, size_);
        const bool receives = to == every_rank || to == rank_;
        const auto total = piece.size() * static_cast<std::size_t>(size_);
        const int count = piece_of("gather", total, receives ? all.size() : total);
        MPI_Request request;
        if (to == every_rank) {
            check(MPI_Iallgather(piece.data(), count, type<U>(), all.data(), count, type<U>(), ranks_,
                                 &request),
                  "MPI_Iallgather");
        } else {
            check(MPI_Igather(piece.data(), count, type<U>(), all.data(), count, type<U>(), to, ranks_,
                              &request),
                  "MPI_Igather");
        }
        wait(request, "a gathering");
    }

    [[noreturn]] void abort(const std::string& message) {
        detail::announce_end(rank_, size_, message);
        MPI_Abort(ranks_, 1);
        std::abort();
    }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr const char* name = "MPICommunicator";

    template <class U>
    static MPI_Datatype type() {
        if constexpr (std::is_same_v<U, float>) return MPI_FLOAT;
        if constexpr (std::is_same_v<U, double>) return MPI_DOUBLE;
        static_assert(Real<U> || std::is_same_v<U, std::byte>);
        return MPI_BYTE;
    }

    /// Elements of one of size() pieces of a buffer, whose length the other one must have too.
    int piece_of(const char* operation, std::size_t total, std::size_t other) const {
        const auto ranks = static_cast<std::size_t>(size_);
        require(total % ranks == 0 && total == other && total / ranks <= INT_MAX,
                std::string("MPICommunicator::") + operation + ": elements of the buffers:",
                std::to_string(total) + " and " + std::to_string(other),
                "as many in both, in " + std::to_string(size_) + " pieces of at most 2^31 - 1");
        return static_cast<int>(total / ranks);
    }

    /// MPI counts in int.
    template <class U, class Start>
    void in_pieces(const char* what, std::span<U> values, Start start) {
        constexpr std::size_t most = std::size_t(1) << 28;
        for (std::size_t at = 0; at < values.size(); at += most) {
            MPI_Request request;
            const auto count = static_cast<int>(std::min(most, values.size() - at));
            check(start(values.data() + at, count, &request), what);
            wait(request, what);
        }
    }

    /// MPI moves bytes while it is asked whether it has. Who has waited for long lets others have the core.
    void wait(MPI_Request& request, const char* what) {
        using namespace std::chrono_literals;
        const auto start = Clock::now();
        for (int done = 0;;) {
            check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
            if (done) return;
            const auto waited = Clock::now() - start;
            if (waited > timeout_)
                throw CommunicationError(
                    rank_, std::string(what) + " has waited for " + std::to_string(long(timeout_.count())) +
                               " s: another rank hangs or works longer than the timeout");
            if (waited > 100ms) {
                std::this_thread::sleep_for(20us);
            } else {
                std::this_thread::yield();
            }
        }
    }

    void check(int status, const char* call) const {
        if (status == MPI_SUCCESS) return;
        char text[MPI_MAX_ERROR_STRING] = "";
        int length = 0;
        MPI_Error_string(status, text, &length);
        throw CommunicationError(rank_, std::string(call) + ": " + text);
    }

    MPI_Comm ranks_ = MPI_COMM_NULL;
    int rank_ = 0;
    int size_ = 1;
    std::chrono::duration<double> timeout_{0};
};

static_assert(Communicator<MPICommunicator>);

}  // namespace residua
