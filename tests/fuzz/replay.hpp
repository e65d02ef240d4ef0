#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace residua::fuzz {

/// Runs `target` on every file of the corpus tests/fuzz/corpus/<name>, on about `variants` of its beginnings, and on the
/// file with one of about as many bytes replaced: what CI does in place of an hour of fuzzing. How many runs that were.
inline int replay(std::string_view name, int variants, int (*target)(const std::uint8_t*, std::size_t)) {
    namespace fs = std::filesystem;
    int runs = 0;
    const auto run = [&](const std::string& bytes, std::size_t size) {
        target(reinterpret_cast<const std::uint8_t*>(bytes.data()), size);
        ++runs;
    };
    for (const auto& entry :
         fs::directory_iterator(fs::path(RESIDUA_TEST_DATA_DIR) / "../fuzz/corpus" / name)) {
        std::ifstream file(entry.path(), std::ios::binary);
        std::string bytes{std::istreambuf_iterator<char>(file), {}};
        run(bytes, bytes.size());
        const std::size_t step = std::max<std::size_t>(bytes.size() / std::size_t(variants), 1);
        for (std::size_t at = 0; at < bytes.size(); at += step) {
            run(bytes, at);
            const char kept = std::exchange(bytes[at], char(bytes[at] ^ char(0xff >> at % 8)));
            run(bytes, bytes.size());
            bytes[at] = kept;
        }
    }
    return runs;
}

}  // namespace residua::fuzz
