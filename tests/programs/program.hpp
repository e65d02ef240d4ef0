#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>

namespace fs = std::filesystem;

/// What a program left behind.
struct Output {
    int code = -1;
    std::string out, err;
};

/// Fresh folder, gone at the end.
struct Folder {
    fs::path path = fs::temp_directory_path() / ("residua_program_" + std::to_string(::getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const char* name) const { return (path / name).string(); }
};

inline std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Copies files of these names from a folder into another one, which is made.
inline void copy_files(const std::string& from, const std::string& to,
                       std::initializer_list<const char*> names) {
    fs::create_directories(to);
    for (const char* name : names) fs::copy_file(fs::path(from) / name, fs::path(to) / name);
}

inline Output run_program(const std::string& program, const Folder& folder, const std::string& arguments) {
    const std::string out = folder / "stdout", err = folder / "stderr";
    const int status = std::system((program + " " + arguments + " >" + out + " 2>" + err).c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, content(out), content(err)};
}

inline Output llama_quantize(const Folder& folder, const std::string& arguments) {
    return run_program(RESIDUA_LLAMA_QUANTIZE, folder, arguments);
}

inline Output vit_quantize(const Folder& folder, const std::string& arguments) {
    return run_program(RESIDUA_VIT_QUANTIZE, folder, arguments);
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}
