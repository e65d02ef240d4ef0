#pragma once

#include <nccl.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <thread>
#include <type_traits>

#include "residua/backends/cuda/backend.hpp"
#include "residua/core/error.hpp"
#include "residua/distributed/communicator.hpp"

namespace residua {

/// What the ranks of an NCCL communicator must share before there is one: made by one rank, and brought to the
/// others by MPI (`broadcast` of its bytes), or by a file that all of them see.
class NCCLRendezvous {
  public:
    ncclUniqueId id = {};

    /// A new one, for one rank to make.
    [[nodiscard]] static NCCLRendezvous create() {
        NCCLRendezvous rendezvous;
        const ncclResult_t status = ncclGetUniqueId(&rendezvous.id);
        if (status != ncclSuccess)
            throw CommunicationError(0, std::string("ncclGetUniqueId: ") + ncclGetErrorString(status));
        return rendezvous;
    }

    /// By a file: rank 0 writes it, the others wait for it. `path` is of this run alone, for a file that another
    /// one has left would be taken for this run's: rank 0 refuses one that exists. It may be removed once
    /// NCCLCommunicators exist.
    [[nodiscard]] static NCCLRendezvous by_file(const std::filesystem::path& path, int rank,
                                                std::chrono::duration<double> timeout) {
        using Clock = std::chrono::steady_clock;
        if (rank == 0) {
            require(!std::filesystem::exists(path), "NCCLRendezvous::by_file: path is", path,
                    "a file that does not exist yet");
            const NCCLRendezvous made = create();
            auto unfinished = path;
            unfinished += ".unfinished";
            std::ofstream(unfinished, std::ios::binary).write(made.id.internal, sizeof made.id.internal);
            std::filesystem::rename(unfinished, path);
            return made;
        }
        const auto start = Clock::now();
        while (!std::filesystem::exists(path)) {
            if (Clock::now() - start > timeout)
                throw CommunicationError(rank, "rank 0 has not written " + path.string() + " within " +
                                                   std::to_string(timeout.count()) + " s");
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        NCCLRendezvous read;
        std::ifstream file(path, std::ios::binary);
        if (!file.read(read.id.internal, sizeof read.id.internal))
            throw CommunicationError(rank, path.string() + " is too short");
        return read;
    }
};

/// Ranks of NCCL, one process for each GPU. Buffers may be in device memory of the backend's GPU, or in host
/// memory, of which copies are sent.
///
/// Works on the stream of `backend`, which must outlive this, behind what is there; an operation returns when it
/// is done. A rank that waits for one that hangs or has died throws CommunicationError after `timeout`, and the
/// communicator cannot be used any more.
///
///     const auto rendezvous = residua::NCCLRendezvous::by_file(path, rank, std::chrono::seconds(60));
///     residua::CudaBackend gpu;
///     residua::NCCLCommunicator ranks(gpu, rendezvous, {.rank = rank, .size = size});
///     residua::all_reduce(moments, ranks);
class NCCLCommunicator {
  public:
    static constexpr bool reaches_device = true;

    struct Place {
        int rank = 0;
        int size = 1;
    };

    /// Collective.
    NCCLCommunicator(CudaBackend& backend, const NCCLRendezvous& rendezvous, const Place& place,
                     std::chrono::duration<double> timeout = std::chrono::minutes(10))
        : backend_(backend), place_(place) {
        require(place.size >= 1, "NCCLCommunicator: size is", place.size, "at least 1");
        require(place.rank >= 0 && place.rank < place.size, "NCCLCommunicator: rank is", place.rank,
                "in [0, size)");
        set_timeout(timeout);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;  // else nobody could stop waiting for a rank that never comes
        enqueued(ncclCommInitRankConfig(&ranks_, place.size, rendezvous.id, place.rank, &config),
                 "ncclCommInitRankConfig");
        detail::cuda::check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
    }
    NCCLCommunicator(const NCCLCommunicator&) = delete;
    NCCLCommunicator& operator=(const NCCLCommunicator&) = delete;

    ~NCCLCommunicator() {
        if (ranks_ && std::uncaught_exceptions() == 0 && is_finalized()) {
            ncclCommDestroy(ranks_);
        } else if (ranks_) {
            ncclCommAbort(ranks_);
        }
        if (done_) cudaEventDestroy(done_);
    }

    void set_timeout(std::chrono::duration<double> timeout) {
        detail::require_timeout(name, timeout);
        timeout_ = timeout;
    }

    int rank() const { return place_.rank; }
    int size() const { return place_.size; }

    template <Real U>
    void sum(std::span<U> values, int to) {
        detail::require_receiver(name, "sum", to, size());
        const OnDevice<U> near(backend_, values, true);
        if (to == every_rank) {
            run("ncclAllReduce", [&] {
                return ncclAllReduce(near.data(), near.data(), values.size(), type<U>(), ncclSum, ranks_,
                                     stream());
            });
        } else {
            run("ncclReduce", [&] {
                return ncclReduce(near.data(), near.data(), values.size(), type<U>(), ncclSum, to, ranks_,
                                  stream());
            });
        }
        near.copy_back();
    }

    template <class U>
    void broadcast(std::span<U> values, int from) {
        detail::require_sender(name, from, size());
        const OnDevice<U> near(backend_, values, from == rank());
        run("ncclBroadcast", [&] {
            return ncclBroadcast(near.data(), near.data(), values.size(), type<U>(), from, ranks_, stream());
        });
        if (from != rank()) near.copy_back();
    }

    template <Real U>
    void exchange(std::span<const U> out, std::span<U> in) {
        const auto piece = out.size() / static_cast<std::size_t>(size());
        require(piece * static_cast<std::size_t>(size()) == out.size() && out.size() == in.size(),
                "NCCLCommunicator::exchange: elements of out:", out.size(),
                "as many as in `in`, in " + std::to_string(size()) + " equal pieces");
        const OnDevice<const U> from(backend_, out, true);
        const OnDevice<U> to(backend_, in, false);
        run("ncclSend and ncclRecv", [&] {
            const Group group;
            for (int r = 0; r < size(); ++r) {
                const auto at = static_cast<std::size_t>(r) * piece;
                ncclResult_t status = ncclSend(from.data() + at, piece, type<U>(), r, ranks_, stream());
                if (status == ncclSuccess || status == ncclInProgress)
                    status = ncclRecv(to.data() + at, piece, type<U>(), r, ranks_, stream());
                if (status != ncclSuccess && status != ncclInProgress) return status;
            }
            return group.end();
        });
        to.copy_back();
    }

    template <Real U>
    void gather(std::span<const U> piece, std::span<U> all, int to) {
        detail::require_receiver(name, "gather", to, size());
        const bool receives = to == every_rank || to == rank();
        require(!receives || all.size() == piece.size() * static_cast<std::size_t>(size()),
                "NCCLCommunicator::gather: elements of all:", all.size(),
                std::to_string(size()) + " times those of a piece");
        const OnDevice<const U> from(backend_, piece, true);
        const OnDevice<U> near(backend_, receives ? all : std::span<U>(), false);
        if (to == every_rank) {
            run("ncclAllGather", [&] {
                return ncclAllGather(from.data(), near.data(), piece.size(), type<U>(), ranks_, stream());
            });
        } else {
            run("ncclSend and ncclRecv", [&] {
                const Group group;
                ncclResult_t status = ncclSend(from.data(), piece.size(), type<U>(), to, ranks_, stream());
                for (int r = 0; r < size() && receives; ++r) {
                    if (status != ncclSuccess && status != ncclInProgress) return status;
                    status = ncclRecv(near.data() + static_cast<std::size_t>(r) * piece.size(), piece.size(),
                                      type<U>(), r, ranks_, stream());
                }
                if (status != ncclSuccess && status != ncclInProgress) return status;
                return group.end();
            });
        }
        near.copy_back();
    }

    /// The message, and the end of this process. The others end when they wait for it, after their timeout.
    [[noreturn]] void abort(const std::string& message) {
        detail::announce_end(rank(), size(), message);
        std::_Exit(1);
    }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr const char* name = "NCCLCommunicator";

    /// Values where the GPU is: they themselves, or a copy of those in host memory.
    template <class U>
    class OnDevice {
      public:
        OnDevice(CudaBackend& backend, std::span<U> values, bool copies)
            : backend_(backend), values_(values) {
            cudaPointerAttributes attributes = {};
            if (values.empty() || (cudaPointerGetAttributes(&attributes, values.data()) == cudaSuccess &&
                                   attributes.type == cudaMemoryTypeDevice))
                return;
            cudaGetLastError();  // of memory that CUDA does not know
            copy_ = backend.allocate<Element>(1, static_cast<Index>(values.size()));
            if (copies) copy(copy_.view().data, values.data());
        }

        U* data() const { return copy_.rows() ? const_cast<Element*>(copy_.view().data) : values_.data(); }

        void copy_back() const {
            if constexpr (!std::is_const_v<U>)
                if (copy_.rows()) copy(values_.data(), copy_.view().data);
        }

      private:
        using Element = std::remove_const_t<U>;

        void copy(Element* to, const Element* from) const {
            detail::cuda::check(
                cudaMemcpyAsync(to, from, values_.size_bytes(), cudaMemcpyDefault, backend_.stream()),
                "cudaMemcpyAsync");
            backend_.synchronize();
        }

        CudaBackend& backend_;
        std::span<U> values_;
        DeviceMatrix<Element> copy_;
    };

    /// Sends and receives that go on side by side.
    class Group {
      public:
        Group() { ncclGroupStart(); }
        ncclResult_t end() const {
            ended_ = true;
            return ncclGroupEnd();
        }
        Group(const Group&) = delete;
        Group& operator=(const Group&) = delete;
        ~Group() {
            if (!ended_) ncclGroupEnd();
        }

      private:
        mutable bool ended_ = false;
    };

    template <class U>
    static ncclDataType_t type() {
        if constexpr (std::is_same_v<U, float>) return ncclFloat32;
        if constexpr (std::is_same_v<U, double>) return ncclFloat64;
        static_assert(Real<U> || std::is_same_v<U, std::byte>);
        return ncclUint8;
    }

    cudaStream_t stream() const { return backend_.stream(); }

    template <class Start>
    void run(const char* call, Start start) {
        if (!ranks_) throw CommunicationError(rank(), "an operation that failed has ended the communicator");
        enqueued(start(), call);
        detail::cuda::check(cudaEventRecord(done_, stream()), "cudaEventRecord");
        wait(call, [&] {
            const cudaError_t status = cudaEventQuery(done_);
            if (status != cudaErrorNotReady) detail::cuda::check(status, call);
            return status == cudaSuccess;
        });
    }

    /// Until NCCL has taken over what was asked for.
    void enqueued(ncclResult_t status, const char* call) {
        if (status != ncclInProgress) return check(status, call);
        wait(call, [&] {
            ncclResult_t now = ncclInProgress;
            check(ncclCommGetAsyncError(ranks_, &now), "ncclCommGetAsyncError");
            return now != ncclInProgress;
        });
    }

    /// Whether nothing is under way any more, for others neither.
    bool is_finalized() {
        const auto start = Clock::now();
        ncclResult_t status = ncclCommFinalize(ranks_);
        while (status == ncclInProgress && Clock::now() - start < timeout_) {
            std::this_thread::yield();
            if (ncclCommGetAsyncError(ranks_, &status) != ncclSuccess) return false;
        }
        return status == ncclSuccess;
    }

    template <class IsDone>
    void wait(const char* call, IsDone is_done) {
        const auto start = Clock::now();
        while (!is_done()) {
            ncclResult_t now = ncclSuccess;
            check(ncclCommGetAsyncError(ranks_, &now), "ncclCommGetAsyncError");
            if (now != ncclInProgress) check(now, call);
            if (Clock::now() - start > timeout_)
                fail(std::string(call) + " has waited for " + std::to_string(long(timeout_.count())) +
                     " s: another rank hangs, has died or works longer than the timeout");
            std::this_thread::yield();
        }
        ncclResult_t now = ncclSuccess;
        check(ncclCommGetAsyncError(ranks_, &now), "ncclCommGetAsyncError");
        check(now, call);
    }

    void check(ncclResult_t status, const char* call) {
        if (status == ncclSuccess) return;
        const char* more = ranks_ ? ncclGetLastError(ranks_) : nullptr;
        fail(std::string(call) + ": " + ncclGetErrorString(status) +
             (more && *more ? std::string(", ") + more : ""));
    }

    [[noreturn]] void fail(const std::string& text) {
        if (ranks_) ncclCommAbort(ranks_);
        ranks_ = nullptr;
        throw CommunicationError(rank(), text);
    }

    CudaBackend& backend_;
    Place place_;
    ncclComm_t ranks_ = nullptr;
    cudaEvent_t done_ = nullptr;
    std::chrono::duration<double> timeout_{0};
};

static_assert(Communicator<NCCLCommunicator>);

}  // namespace residua
