#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace residua {

/// Runs independent tasks. Work is always cut into the same tasks, so results do not depend on how many run
/// at a time.
///
/// An exception that a task throws, for want of memory for example, crosses the threads: tasks that have not
/// begun are left out, and the caller gets the exception that came first.
class Executor {
  public:
    static constexpr int max_threads = 1024;

    using Task = std::function<void(Index)>;
    /// Calls task(0) ... task(count - 1), each once, in any order and on any threads, and returns when all
    /// are done. The tasks that an executor hands over do not throw.
    using ParallelFor = std::function<void(Index count, const Task& task)>;

    /// OpenMP with as many threads as it likes where the build has it, else the calling thread.
    Executor() : Executor(default_threads()) {}

    /// OpenMP with exactly `threads` threads; without OpenMP only 1 is possible.
    explicit Executor(int threads) : threads_(threads) {
        require(threads >= 1 && threads <= (has_openmp ? max_threads : 1), "Executor: threads is", threads,
                has_openmp ? "1 to " + std::to_string(max_threads) : "1 (this build has no OpenMP)");
    }

    /// The engine's own thread pool of `threads` threads.
    Executor(int threads, ParallelFor parallel_for)
        : threads_(threads), parallel_for_(std::move(parallel_for)) {
        require(threads >= 1 && threads <= max_threads, "Executor: threads is", threads,
                "1 to " + std::to_string(max_threads));
        require(static_cast<bool>(parallel_for_), "Executor: parallel_for is", "empty", "a callable");
    }

    int threads() const { return threads_; }

    void operator()(Index count, const Task& task) const {
        if (parallel_for_) {
            Guarded guarded{task};
            parallel_for_(count, std::ref(guarded));
            return guarded.finish();
        }
#ifdef _OPENMP
        if (threads_ > 1 && count > 1) {
            Guarded guarded{task};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
            for (Index i = 0; i < count; ++i) guarded(i);
            return guarded.finish();
        }
#endif
        for (Index i = 0; i < count; ++i) task(i);
    }

  private:
    /// A task that does not throw, but keeps what it would have thrown.
    struct Guarded {
        const Task& task;
        std::atomic<bool> failed = false;
        std::exception_ptr error = nullptr;

        void operator()(Index i) noexcept {
            if (failed.load(std::memory_order_relaxed)) return;
            try {
                task(i);
            } catch (...) {
                if (!failed.exchange(true)) error = std::current_exception();
            }
        }
        /// When all tasks are done.
        void finish() const {
            if (error) std::rethrow_exception(error);
        }
    };

#ifdef _OPENMP
    static constexpr bool has_openmp = true;
    static int default_threads() { return std::min(omp_get_max_threads(), max_threads); }
#else
    static constexpr bool has_openmp = false;
    static int default_threads() { return 1; }
#endif

    int threads_;
    ParallelFor parallel_for_;
};

namespace detail {

/// *flag = 1, which several tasks may do at a time. What std::atomic_ref does, too, but libc++ has that from its
/// version 19 on only.
inline void raise_flag(Code* flag) { __atomic_store_n(flag, Code(1), __ATOMIC_RELAXED); }

}  // namespace detail

}  // namespace residua
