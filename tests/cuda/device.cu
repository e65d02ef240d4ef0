// Without a device nothing here can run: the program says so and fails, which ctest takes for skipped by what it
// says (tests/CMakeLists.txt).

#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <cstdio>
#include <cstdlib>

#include "catch.hpp"
#include "cuda/backends.hpp"

namespace {

void skip_without_device() {
    if (residua::test::has_device()) return;
    std::puts("skipped: no CUDA device, or no driver for it");
    std::fflush(stdout);
    std::_Exit(EXIT_FAILURE);
}

#if __has_include(<catch2/catch_all.hpp>)
struct NeedsDevice : Catch::EventListenerBase {
    using EventListenerBase::EventListenerBase;
    void testRunStarting(const Catch::TestRunInfo&) override { skip_without_device(); }
};
#else
struct NeedsDevice : Catch::TestEventListenerBase {
    using TestEventListenerBase::TestEventListenerBase;
    void testRunStarting(const Catch::TestRunInfo&) override { skip_without_device(); }
};
#endif

CATCH_REGISTER_LISTENER(NeedsDevice)

}  // namespace
