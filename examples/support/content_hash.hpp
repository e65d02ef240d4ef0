#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <residua/io.hpp>
#include <span>
#include <string>
#include <string_view>

/// A 64-bit checksum: finds files that differ by accident, not by intent. Takes 8 bytes at a time, some GB/s.
class ContentHash {
  public:
    /// Adds bytes and how many they are, so that lists of texts with other boundaries differ.
    void add(std::span<const std::byte> bytes) {
        std::size_t at = 0;
        for (; at + sizeof(std::uint64_t) <= bytes.size(); at += sizeof(std::uint64_t)) {
            std::uint64_t word;
            std::memcpy(&word, bytes.data() + at, sizeof word);
            mix(word);
        }
        std::uint64_t rest = 0;
        if (at < bytes.size()) std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
        mix(rest);
        mix(bytes.size());
    }
    void add(std::string_view text) { add(std::as_bytes(std::span(text))); }

    [[nodiscard]] std::string text() const {
        char digits[17];
        std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(state_));
        return digits;
    }

  private:
    void mix(std::uint64_t word) {
        state_ = std::rotl((state_ ^ word) * 0x9e3779b97f4a7c15u, 29);
        state_ ^= state_ >> 32;
    }

    std::uint64_t state_ = 0xcbf29ce484222325u;
};

/// Of a whole file.
inline std::string content_of_file(const std::filesystem::path& path) {
    ContentHash hash;
    hash.add(residua::io::MappedFile(path).bytes());
    return hash.text();
}

/// Of config.json and all weights of a model.
inline std::string content_of_model(const std::filesystem::path& folder) {
    ContentHash hash;
    hash.add(residua::io::MappedFile(folder / "config.json").bytes());
    const residua::io::SafetensorsCheckpoint checkpoint(folder);
    for (const auto& shard : checkpoint.shards()) hash.add(residua::io::MappedFile(shard.source()).bytes());
    return hash.text();
}
