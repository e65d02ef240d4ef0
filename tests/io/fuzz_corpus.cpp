// What fuzzing has found interesting so far, and variants of it: see tests/fuzz.

#include "catch.hpp"
#include "fuzz/formats.hpp"
#include "fuzz/replay.hpp"
#include "fuzz/safetensors.hpp"

using namespace residua;

TEST_CASE("readers give every file of the fuzzers' corpora a defined end", "[fuzz]") {
    CHECK(fuzz::replay("safetensors", 256, fuzz::run_safetensors) > 1000);
    CHECK(fuzz::replay("formats", 32, fuzz::run_formats) > 1000);
}
