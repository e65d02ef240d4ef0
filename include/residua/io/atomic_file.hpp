#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "residua/core/error.hpp"
#include "residua/io/error.hpp"

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <unistd.h>
#endif

namespace residua::io {

/// A new file that appears under its name complete or not at all.
///
/// Bytes go to a temporary file in the same directory; commit() makes them durable and renames it onto
/// `path`, replacing a file (or a symbolic link, not what it points to) of that name, but nothing else: a
/// device, a pipe or a directory is refused, when the object is made and once more by commit(). Destruction without
/// commit(), and any failure, removes the temporary file and leaves `path` as it was. Only one failure is
/// later than the rename: where the directory itself cannot be made durable, commit() throws and `path` holds
/// the new, complete file.
///
/// Throws FileError where the system refuses, std::invalid_argument after commit(), a failure or a move.
class AtomicFile {
  public:
    explicit AtomicFile(const std::filesystem::path& path) : path_(std::filesystem::absolute(path)) {
        open();
    }

    AtomicFile(AtomicFile&& other) noexcept
        : path_(std::move(other.path_)),
          temporary_(std::move(other.temporary_)),
          file_(std::exchange(other.file_, nullptr)) {}
    AtomicFile& operator=(AtomicFile&& other) noexcept {
        std::swap(path_, other.path_);
        std::swap(temporary_, other.temporary_);
        std::swap(file_, other.file_);
        return *this;
    }
    ~AtomicFile() {
        if (file_ != nullptr) close_and_remove();
    }

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

    /// Adds bytes at the end of the file.
    void append(std::span<const std::byte> bytes) {
        require_open("append");
        if (bytes.empty()) return;
        errno = 0;
        if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("write");
    }

    /// Makes the bytes durable and gives the file its name; nothing can be appended afterwards.
    void commit() {
        require_open("commit");
        errno = 0;
        if (std::fflush(file_) != 0) fail("write");
#if __has_include(<unistd.h>)
        if (::fsync(::fileno(file_)) != 0) fail("write");
#endif
        if (std::fclose(std::exchange(file_, nullptr)) != 0) fail("close");
        if (!is_replaceable()) {
            remove_temporary();
            refuse_to_replace();
        }
        std::error_code error;
        std::filesystem::rename(temporary_, path_, error);
        if (error) {
            remove_temporary();
            throw FileError("rename a temporary file to", path_.string(), error.value());
        }
        make_directory_durable();
    }

  private:
    bool is_replaceable() const {
        std::error_code ignored;
        const auto status = std::filesystem::symlink_status(path_, ignored);
        return !std::filesystem::exists(status) || std::filesystem::is_regular_file(status) ||
               std::filesystem::is_symlink(status);
    }

    [[noreturn]] void refuse_to_replace() const {
        std::error_code ignored;
        const bool is_folder = std::filesystem::is_directory(path_, ignored);
        throw FileError("replace (not a regular file)", path_.string(), is_folder ? EISDIR : EEXIST);
    }

    void open() {
        if (!is_replaceable()) refuse_to_replace();
        std::random_device random;
        for (int attempt = 0; attempt < 100; ++attempt) {
            const std::uint64_t number = (static_cast<std::uint64_t>(random()) << 32) | random();
            temporary_ = path_.parent_path() / (".residua-" + std::to_string(number) + ".tmp");
            errno = 0;
            file_ = std::fopen(temporary_.string().c_str(), "wbx");  // x: never opens what exists
            if (file_ != nullptr) return;
            if (errno != EEXIST) break;
        }
        throw FileError("create a temporary file for", path_.string(), errno);
    }

    void require_open(std::string_view action) const {
        require(file_ != nullptr, "AtomicFile: '" + path_.string() + "' is",
                "committed, failed or moved from", std::string("an open file to ").append(action));
    }

    [[noreturn]] void fail(std::string_view action) {
        const int error = errno != 0 ? errno : EIO;
        close_and_remove();
        throw FileError(action, path_.string(), error);
    }

    void close_and_remove() noexcept {
        if (file_ != nullptr) std::fclose(std::exchange(file_, nullptr));
        remove_temporary();
    }

    void remove_temporary() noexcept {
        std::error_code ignored;
        std::filesystem::remove(temporary_, ignored);
    }

    void make_directory_durable() const {
#if __has_include(<unistd.h>)
        const int directory = ::open(path_.parent_path().c_str(), O_RDONLY | O_CLOEXEC);
        if (directory < 0) return;  // a directory may be writable and yet not readable
        const int error = ::fsync(directory) == 0 ? 0 : errno;
        ::close(directory);
        // EINVAL: this file system has no such operation.
        if (error != 0 && error != EINVAL)
            throw FileError("make durable the directory of", path_.string(), error);
#endif
    }

    std::filesystem::path path_;
    std::filesystem::path temporary_;
    std::FILE* file_ = nullptr;
};

}  // namespace residua::io
