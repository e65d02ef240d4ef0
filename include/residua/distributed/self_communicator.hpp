#pragma once

#include <algorithm>
#include <chrono>

#include "residua/distributed/communicator.hpp"

namespace residua {

/// One rank alone, so that code for several runs without any engine.
class SelfCommunicator {
  public:
    static constexpr bool reaches_device = false;

    int rank() const { return 0; }
    int size() const { return 1; }
    int local_rank() const { return 0; }
    void set_timeout(std::chrono::duration<double> timeout) {  // it waits for nobody
        detail::require_timeout(name, timeout);
    }

    template <class U>
    void sum(std::span<U>, int to) {
        detail::require_receiver(name, "sum", to, 1);
    }

    template <class U>
    void broadcast(std::span<U>, int from) {
        detail::require_sender(name, from, 1);
    }

    template <class U>
    void exchange(std::span<const U> out, std::span<U> in) {
        copy("exchange", out, in);
    }

    template <class U>
    void gather(std::span<const U> piece, std::span<U> all, int to) {
        detail::require_receiver(name, "gather", to, 1);
        copy("gather", piece, all);
    }

    [[noreturn]] void abort(const std::string& message) { throw CommunicationError(0, message); }

  private:
    static constexpr const char* name = "SelfCommunicator";

    template <class U>
    static void copy(const std::string& operation, std::span<const U> from, std::span<U> to) {
        require(from.size() == to.size(), name + ("::" + operation) + ": values to receive:", to.size(),
                std::to_string(from.size()) + ", as many as are sent");
        std::copy(from.begin(), from.end(), to.begin());
    }
};

static_assert(Communicator<SelfCommunicator>);

}  // namespace residua
