// libFuzzer target: no bytes at all may do worse to the readers than a FormatError.
//
//     clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I include
//         tests/io/fuzz/safetensors_fuzzer.cpp -o safetensors_fuzzer
//     mkdir found && ./safetensors_fuzzer found tests/io/fuzz/corpus

#include "safetensors_fuzzer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return residua::fuzz::run_safetensors(data, size);
}
