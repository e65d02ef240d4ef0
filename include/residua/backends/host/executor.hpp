#pragma once

#include <functional>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace residua {

/// Runs independent tasks. Work is always cut into the same tasks, so results do not depend on how many run
/// at a time.
class Executor {
  public:
    using Task = std::function<void(Index)>;
    /// Calls task(0) ... task(count - 1), each once, in any order and on any threads, and returns when all
    /// are done. Tasks do not throw.
    using ParallelFor = std::function<void(Index count, const Task& task)>;

    /// OpenMP with as many threads as it likes where the build has it, else the calling thread.
    Executor() : Executor(default_threads()) {}

    /// OpenMP with exactly `threads` threads; without OpenMP only 1 is possible.
    explicit Executor(int threads) : threads_(threads) {
        require(threads >= 1 && (threads == 1 || has_openmp), "Executor: threads is", threads,
                has_openmp ? "at least 1" : "1 (this build has no OpenMP)");
    }

    /// The engine's own thread pool of `threads` threads.
    Executor(int threads, ParallelFor parallel_for)
        : threads_(threads), parallel_for_(std::move(parallel_for)) {
        require(threads >= 1, "Executor: threads is", threads, "at least 1");
        require(static_cast<bool>(parallel_for_), "Executor: parallel_for is", "empty", "a callable");
    }

    int threads() const { return threads_; }

    void operator()(Index count, const Task& task) const {
        if (parallel_for_) return parallel_for_(count, task);
#ifdef _OPENMP
        if (threads_ > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
            for (Index i = 0; i < count; ++i) task(i);
            return;
        }
#endif
        for (Index i = 0; i < count; ++i) task(i);
    }

  private:
#ifdef _OPENMP
    static constexpr bool has_openmp = true;
    static int default_threads() { return omp_get_max_threads(); }
#else
    static constexpr bool has_openmp = false;
    static int default_threads() { return 1; }
#endif

    int threads_;
    ParallelFor parallel_for_;
};

}  // namespace residua
