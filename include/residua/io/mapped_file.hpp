#pragma once

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "residua/io/error.hpp"

/// 1: files are mapped into memory. 0: files are read into memory, where the system has no mmap.
#ifndef RESIDUA_HAS_MMAP
#if __has_include(<sys/mman.h>)
#define RESIDUA_HAS_MMAP 1
#else
#define RESIDUA_HAS_MMAP 0
#endif
#endif

#if RESIDUA_HAS_MMAP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#include <vector>
#endif

namespace residua::io {

/// The bytes of a regular file, read-only, for as long as the object lives. Moving it keeps their address.
///
/// An empty file has no bytes and is no error. Shortening the file while it is mapped makes the system signal
/// SIGBUS on access; replacing it by a rename, as AtomicFile does, is safe.
///
/// Throws FileError where `path` is missing, not a regular file, or not readable.
class MappedFile {
  public:
    explicit MappedFile(const std::filesystem::path& path);

    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

#if RESIDUA_HAS_MMAP
    MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    MappedFile& operator=(MappedFile&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~MappedFile() {
        if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
#else
    MappedFile(MappedFile&&) noexcept = default;
    MappedFile& operator=(MappedFile&&) noexcept = default;

  private:
    std::vector<std::byte> buffer_;
#endif

  private:
    std::span<const std::byte> bytes_;
};

#if RESIDUA_HAS_MMAP

inline MappedFile::MappedFile(const std::filesystem::path& path) {
    struct Descriptor {
        int number;
        ~Descriptor() {
            if (number >= 0) ::close(number);
        }
    };
    // O_NONBLOCK: opening a pipe must fail below instead of waiting for a writer.
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.number < 0) throw FileError("open", path.string(), errno);
    struct stat status = {};
    if (::fstat(file.number, &status) != 0) throw FileError("inspect", path.string(), errno);
    if (S_ISDIR(status.st_mode)) throw FileError("read", path.string(), EISDIR);
    if (!S_ISREG(status.st_mode)) throw FileError("map (not a regular file)", path.string(), EINVAL);
    if (status.st_size == 0) return;  // mmap refuses an empty range

    if (std::cmp_greater(status.st_size, std::numeric_limits<std::ptrdiff_t>::max()))
        throw FileError("map", path.string(), EFBIG);
    const auto size = static_cast<std::size_t>(status.st_size);
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (address == MAP_FAILED) throw FileError("map", path.string(), errno);
    bytes_ = {static_cast<const std::byte*>(address), size};
}

#else

inline MappedFile::MappedFile(const std::filesystem::path& path) {
    const auto status = std::filesystem::status(path);
    if (!std::filesystem::exists(status)) throw FileError("open", path.string(), ENOENT);
    if (std::filesystem::is_directory(status)) throw FileError("read", path.string(), EISDIR);
    if (!std::filesystem::is_regular_file(status))
        throw FileError("read (not a regular file)", path.string(), EINVAL);

    std::ifstream file(path, std::ios::binary);
    if (!file) throw FileError("open", path.string(), EACCES);
    buffer_.resize(std::filesystem::file_size(path));
    if (!file.read(reinterpret_cast<char*>(buffer_.data()), static_cast<std::streamsize>(buffer_.size())))
        throw FileError("read", path.string(), EIO);
    bytes_ = buffer_;
}

#endif

}  // namespace residua::io
