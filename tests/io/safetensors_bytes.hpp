#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "residua/io/safetensors/checkpoint.hpp"
#include "residua/io/safetensors/file.hpp"
#include "residua/io/safetensors/view.hpp"
#include "residua/io/safetensors/writer.hpp"

/// Files made by hand, and a place to put them.
namespace residua::test {

/// u64 size of the header | header | data
inline std::string safetensors_bytes(const std::string& header, const std::string& data = "") {
    std::string size;
    for (int i = 0; i < 8; ++i)
        size += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 0xffu);
    return size + header + data;
}

inline io::SafetensorsView parse(std::string_view file) {
    return io::SafetensorsView::parse(std::as_bytes(std::span(file)), "test.safetensors");
}

/// what() of the FormatError, and no other error, that `call` ends in; "" where it ends well.
template <class Call>
std::string format_error_of(Call&& call) {
    try {
        std::forward<Call>(call)();
    } catch (const io::FormatError& error) {
        return error.what();
    }
    return "";
}

inline std::string parse_error_of(std::string_view file) {
    return format_error_of([&] { (void)parse(file); });
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    std::memcpy(bytes.data(), std::data(values), bytes.size());
    return bytes;
}

/// An empty folder of its own, removed at the end.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        static std::atomic<int> count = 0;
        std::random_device random;
        path_ = std::filesystem::temp_directory_path() /
                ("residua-test-" + std::to_string(random()) + "-" + std::to_string(count++));
        std::filesystem::create_directory(path_);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

    std::filesystem::path write(std::string_view name, std::string_view bytes) const {
        std::ofstream(path_ / name, std::ios::binary)
            .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        return path_ / name;
    }

    bool is_empty() const { return std::filesystem::is_empty(path_); }

  private:
    std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace residua::test
