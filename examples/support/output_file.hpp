#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <residua/core/error.hpp>
#include <residua/io/error.hpp>
#include <stdexcept>
#include <string>
#include <vector>

/// What to do with what is there already. Without either nothing may be there that would be written.
enum class Existing {
    Refuse,
    Resume,     ///< go on with it, if this program made it of the same
    Overwrite,  ///< replace it
};

/// What the flags --resume and --overwrite ask for. Throws std::invalid_argument where both are given.
inline Existing existing_by(bool resume, bool overwrite) {
    residua::require(!resume || !overwrite, "--resume: --overwrite is", "given", "one of the two");
    if (resume) return Existing::Resume;
    return overwrite ? Existing::Overwrite : Existing::Refuse;
}

/// Throws std::invalid_argument unless `path`, asked for by `option`, can be written as a new file: the folder is
/// there, and nothing has the name yet, or `overwrite` and a regular file has it; FileError where the folder may
/// not be written to. What is neither, a link or a device, is never replaced. Nothing is written here: a program
/// asks before it works for hours.
inline void require_new_file(const std::string& option, const std::filesystem::path& path, bool overwrite) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::path folder = fs::absolute(path).parent_path();
    const std::string shown = option + ": '" + path.string() + "'";
    residua::require(path.has_filename() && !fs::is_directory(path, ignored), shown + " is", "a folder",
                     "the name of a file");
    residua::require(fs::is_directory(folder, ignored), option + ": the folder '" + folder.string() + "' is",
                     "missing", "a folder to write in");
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
        const int error = errno;
        throw residua::io::FileError("write " + option + " to the folder", folder.string(), error);
    }
    const fs::file_status status = fs::symlink_status(path, ignored);
    if (!fs::exists(status)) return;
    residua::require(fs::is_regular_file(status), shown + " is", "no regular file",
                     "the name of a new file, or of a regular one");
    residua::require(overwrite, shown, "exists", "--overwrite, or another name");
}

/// Throws std::invalid_argument where `path`, asked for by `option`, is one of `inputs` by any of its names; of a
/// folder, one of the files in it. What a run reads is not replaced, whatever it was told to overwrite.
inline void require_apart(const std::string& option, const std::filesystem::path& path,
                          const std::vector<std::filesystem::path>& inputs) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const auto check = [&](const fs::path& input) {
        residua::require(!fs::equivalent(path, input, ignored), option + ": '" + path.string() + "' is",
                         "read by this run", "another file");
    };
    for (const fs::path& input : inputs) {
        check(input);
        if (!fs::is_directory(input, ignored)) continue;
        for (const auto& entry : fs::directory_iterator(input, ignored)) check(entry.path());
    }
}

/// For the end of a program: throws std::runtime_error where a part of its standard output was not written.
inline void finish_stdout() {
    errno = 0;
    const bool is_written = bool(std::cout.flush()) && std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    if (!is_written)
        throw std::runtime_error(std::string("residua: cannot write to the standard output: ") +
                                 std::strerror(errno != 0 ? errno : EIO));
}
