#pragma once

#include <condition_variable>
#include <mutex>
#include <stdexcept>

#include "weight_use.hpp"

/// A node of the full-precision model's graph that reads a weight, and all nodes before it.
struct ReferenceUse {
    WeightUse use;
    const std::vector<ggml_tensor*>* nodes;
};

/// Lets two threads walk through the graphs of two models in step: the full-precision one offers each node in question and
/// waits there, so that its tensors stay as they are, until the other one has read them.
class Handoff {
  public:
    /// By the reference's thread. False where the other thread has no need of more.
    bool offer(const ReferenceUse& offered) {
        std::unique_lock lock(mutex_);
        offered_ = offered;
        changed_.notify_all();
        changed_.wait(lock, [&] { return !offered_ || closed_; });
        return !closed_;
    }

    /// By the other thread, which must release() what it gets. Throws std::runtime_error where the reference has ended, or
    /// has come to another weight.
    ReferenceUse take(const std::string& weight) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return offered_ || closed_; });
        if (!offered_ || offered_->use.name() != weight)
            throw std::runtime_error("residua: the graphs of the model and of its draft differ at " + weight);
        return *offered_;
    }
    void release() {
        const std::lock_guard lock(mutex_);
        offered_.reset();
        changed_.notify_all();
    }

    /// By either thread when it ends: the other one does not wait any more.
    void close() {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        changed_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<ReferenceUse> offered_;
    bool closed_ = false;
};
