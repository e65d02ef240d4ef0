// What fuzzing has found interesting so far, and variants of it: see tests/fuzz.

#include "catch.hpp"
#include "fuzz/replay.hpp"
#include "fuzz/solver.hpp"

using namespace residua;

TEST_CASE("Solves of the fuzzer's corpus have a defined end", "[solver][fuzz]") {
    CHECK(fuzz::replay("solver", 8, fuzz::run_solver) > 500);
}
