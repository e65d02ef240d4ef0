// Without a device nothing here can run: the program says so and ends well.

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
    std::_Exit(0);
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
