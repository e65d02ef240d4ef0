#pragma once

#include <charconv>
#include <cstring>
#include <residua/io.hpp>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"

namespace llama {

using Token = std::int32_t;
using Windows = std::vector<std::vector<Token>>;  ///< each is a text of its own, from position 0 on

namespace detail {

/// `tokens`, (windows, length) or a flat list that is cut, as I32.
inline Windows windows_of_tensor(const std::filesystem::path& path, Index length) {
    const residua::io::SafetensorsFile file(path);
    const auto& shape = file.info("tokens").shape;
    const auto tokens = file.read<Token>("tokens");
    const Index width = shape.size() == 2 ? shape[1] : length;
    Windows windows;
    for (Index at = 0; width > 0 && at + width <= Index(tokens.size()); at += width)
        windows.emplace_back(tokens.begin() + at, tokens.begin() + at + width);
    return windows;
}

/// Numbers between white space, each line cut into windows of `length`; a shorter line is a window of its own.
inline Windows windows_of_lines(const std::string& source, std::string_view text, Index length) {
    Windows windows;
    Index number = 1;
    for (; !text.empty(); ++number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        std::vector<Token> window;
        for (;;) {
            line.remove_prefix(std::min(line.find_first_not_of(" \t\r,"), line.size()));
            if (line.empty()) break;
            Token token = 0;
            const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), token);
            residua::require(error == std::errc() && rest != line.data(),
                             source + ", line " + std::to_string(number) + ": a token is",
                             std::string(line.substr(0, 20)), "a number");
            window.push_back(token);
            line.remove_prefix(std::size_t(rest - line.data()));
        }
        const Index tokens = Index(window.size());
        if (tokens > 0 && tokens < length)
            windows.push_back(std::move(window));
        else
            for (Index at = 0; at + length <= tokens; at += length)
                windows.emplace_back(window.begin() + at, window.begin() + at + length);
    }
    return windows;
}

inline Windows windows_of_bytes(std::string_view text, Index length) {
    Windows windows;
    for (; Index(text.size()) >= length; text.remove_prefix(std::size_t(length))) {
        auto& window = windows.emplace_back();
        for (const char c : text.substr(0, std::size_t(length)))
            window.push_back(static_cast<unsigned char>(c));
    }
    return windows;
}

}  // namespace detail

/// Keeps at most `limit` windows (0: all). Throws where none is left or a token is not in the vocabulary.
inline void finish_windows(Windows& windows, const std::filesystem::path& path, Index vocabulary,
                           Index length, Index limit) {
    if (limit > 0 && limit < Index(windows.size())) windows.resize(std::size_t(limit));
    residua::require(!windows.empty(),
                     path.string() + ": windows of " + std::to_string(length) + " tokens:", 0, "at least 1");
    for (const auto& window : windows) {
        residua::require(window.size() >= 2, path.string() + ": a window has tokens:", window.size(),
                         "at least 2");
        for (const Token token : window) {
            if (token < 0 || token >= vocabulary)
                residua::reject(path.string() + ": a token is", token,
                                "0 to " + std::to_string(vocabulary - 1) + " (the vocabulary)");
        }
    }
}

/// Reads at most `limit` windows (0: all) for a model with this vocabulary:
///   - a .safetensors file: its I32 tensor `tokens`, (windows, length) or a list that is cut into windows of
///     `length`;
///   - for a byte-level model (vocabulary 256) any other file: its bytes, cut into windows of `length`;
///   - else text: token ids between white space, each line cut into windows of `length`; a shorter line is a
///     window of its own.
/// What is left after the last whole window is not used. Throws where no window is left or a token is not in
/// the vocabulary.
inline Windows read_windows(const std::filesystem::path& path, Index vocabulary, Index length, Index limit) {
    residua::require(length >= 2, "read_windows: length is", length, "at least 2");
    Windows windows;
    if (path.extension() == ".safetensors") {
        windows = detail::windows_of_tensor(path, length);
    } else {
        const residua::io::MappedFile file(path);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        windows = vocabulary == 256 ? detail::windows_of_bytes(text, length)
                                    : detail::windows_of_lines(path.string(), text, length);
    }
    finish_windows(windows, path, vocabulary, length, limit);
    return windows;
}

inline Index longest(const Windows& windows) {
    std::size_t length = 0;
    for (const auto& window : windows) length = std::max(length, window.size());
    return Index(length);
}

}  // namespace llama
