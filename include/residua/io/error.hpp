#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace residua::io {

/// The operating system refused: a file cannot be opened, read, written or renamed.
///
/// what() is "residua: cannot <action> '<path>': <text of the errno>"; code() carries the errno.
class FileError : public std::system_error {
  public:
    FileError(std::string_view action, std::string_view path, int error)
        : std::system_error(
              error, std::generic_category(),
              std::string("residua: cannot ").append(action).append(" '").append(path).append("'")) {}
};

/// A file holds something other than its format, or the program, asks for.
///
/// what() names the file, the tensor, the value found and what was expected.
class FormatError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

namespace detail {

/// Text from a file as it may be shown on a terminal: quoted, without control characters, at most `limit`
/// bytes.
[[nodiscard]] inline std::string in_quotes(std::string_view text, std::size_t limit = 100) {
    std::size_t length = std::min(text.size(), limit);
    const auto inside_character = [&](std::size_t i) {
        return (static_cast<unsigned char>(text[i]) & 0xc0u) == 0x80u;
    };
    while (length > 0 && length < text.size() && inside_character(length)) --length;  // keeps UTF-8 whole
    std::string shown(text.substr(0, length));
    for (std::size_t i = 0; i < shown.size(); ++i) {
        const bool is_c1 = shown[i] == '\xc2' && i + 1 < shown.size() &&
                           (static_cast<unsigned char>(shown[i + 1]) & 0xe0u) == 0x80u;  // U+0080 to U+009F
        if (is_c1) shown.replace(i, 2, "?");
        if (static_cast<unsigned char>(shown[i]) < 0x20u || shown[i] == 0x7f) shown[i] = '?';
    }
    return "'" + shown + (length < text.size() ? "...'" : "'");
}

/// Throws FormatError: "residua: '<file>': <parts>".
template <class... Parts>
[[noreturn]] void malformed(std::string_view file, const Parts&... parts) {
    std::ostringstream text;
    text << "residua: '" << file << "': ";
    (text << ... << parts);
    throw FormatError(text.str());
}

}  // namespace detail
}  // namespace residua::io
