#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <residua/core/error.hpp>
#include <residua/io/error.hpp>
#include <string>
#include <utility>

#include "text.hpp"

/// Keeps a folder for one process: a file in it, with the owner's process number and host, that the owner has
/// locked. It goes with the owner, and where that one was killed the system releases the lock, so that a file
/// left behind on this host is known to be stale. Of a process on another host nothing is known: its file has
/// to be removed by hand.
class FolderLock {
  public:
    static constexpr const char* name = ".residua-lock";

    /// Throws std::invalid_argument where another process has the folder, FileError where the system refuses.
    explicit FolderLock(const std::filesystem::path& folder) : path_(folder / name) {
        while (!try_to_lock()) {
        }
        const std::string owner = content();
        const auto json = nlohmann::json::parse(owner, nullptr, false);
        if (!owner.empty() && (!json.is_object() || !json.contains("host") || json["host"] != host())) {
            ::close(std::exchange(file_, -1));
            refuse(owner, "another folder, or that process to have ended and this file to be removed");
        }
        const std::string mine = nlohmann::json{{"pid", ::getpid()}, {"host", host()}}.dump() + "\n";
        if (::ftruncate(file_, 0) != 0 ||
            ::pwrite(file_, mine.data(), mine.size(), 0) != ssize_t(mine.size()))
            fail("write");
    }
    FolderLock(FolderLock&& other) noexcept
        : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}
    FolderLock& operator=(FolderLock&&) = delete;
    ~FolderLock() {
        if (file_ < 0) return;
        if (is_in_place()) ::unlink(path_.c_str());
        ::close(file_);
    }

    /// Throws std::invalid_argument where the file was taken away or replaced meanwhile.
    void check() const {
        residua::require(is_in_place(), "'" + path_.string() + "' is", "no longer there",
                         "to stay: another process may be writing here");
    }

    static std::string host() {
        std::array<char, 256> text{};
        ::gethostname(text.data(), text.size() - 1);
        return text.data();
    }

  private:
    /// False where an owner removed the file between its being opened and locked.
    bool try_to_lock() {
        file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
        if (file_ < 0) throw residua::io::FileError("create", path_.string(), errno);
        if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) fail("lock");
            const std::string owner = content();
            ::close(std::exchange(file_, -1));
            refuse(owner, "another folder, or that process to have ended");
        }
        if (is_in_place()) return true;
        ::close(std::exchange(file_, -1));
        return false;
    }

    bool is_in_place() const {
        struct stat mine = {}, named = {};
        return ::fstat(file_, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 &&
               mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    }

    std::string content() const {
        std::array<char, 512> text{};
        const ssize_t size = ::pread(file_, text.data(), text.size(), 0);
        std::string read(text.data(), size > 0 ? std::size_t(size) : 0);
        while (!read.empty() && read.back() == '\n') read.pop_back();
        return read;
    }

    [[noreturn]] void refuse(const std::string& owner, const char* expected) const {
        residua::reject("--output: '" + path_.parent_path().string() + "' is in use by",
                        owner.empty() ? "another process" : "'" + printable(owner) + "'", expected);
    }

    [[noreturn]] void fail(const char* action) {
        const int error = errno;
        ::close(std::exchange(file_, -1));
        throw residua::io::FileError(action, path_.string(), error);
    }

    std::filesystem::path path_;
    int file_ = -1;
};
