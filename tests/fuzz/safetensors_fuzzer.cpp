// libFuzzer target: no bytes at all may do worse to the readers than a FormatError.
// cmake/reliability.sh builds and runs it.

#include "safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return residua::fuzz::run_safetensors(data, size);
}
