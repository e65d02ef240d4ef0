// libFuzzer target: no bytes at all may do worse to the readers of GGUF, of checkpoints and their settings, of packed
// layers, of moments and of token files than one of the library's exceptions. cmake/reliability.sh builds and runs it.

#include "formats.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return residua::fuzz::run_formats(data, size);
}
