#pragma once

#include <string>
#include <string_view>

/// Text from a file as it may be shown on a terminal: '?' for the characters that control one.
inline std::string printable(std::string_view text) {
    std::string shown(text);
    for (std::size_t i = 0; i < shown.size(); ++i) {
        const auto byte = static_cast<unsigned char>(shown[i]);
        const bool is_c1 = byte == 0xc2 && i + 1 < shown.size() &&
                           (static_cast<unsigned char>(shown[i + 1]) & 0xe0u) == 0x80u;  // U+0080 to U+009F
        if (is_c1) shown.replace(i, 2, "?");
        if (byte < 0x20 || byte == 0x7f) shown[i] = '?';
    }
    return shown;
}
