// libFuzzer target: whatever the options, the sizes and the numbers, a solve ends in codes that are in range and
// decode to finite weights, in a status, or in std::invalid_argument. cmake/reliability.sh builds and runs it.

#include "solver.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return residua::fuzz::run_solver(data, size);
}
