#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "residua/io/error.hpp"

/// JSON of settings, from files that nobody vouches for, as a tree.
namespace residua::io::detail {

/// Trees are copied and printed by recursion: what is nested deeper is refused before there is a tree.
inline constexpr int max_json_depth = 64;

/// Levels of arrays and objects in a JSON text; of other texts any number that is at least as large as what a
/// parser sees before it gives up.
[[nodiscard]] inline int json_depth(std::string_view text) {
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            deepest = ++depth > deepest ? depth : deepest;
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return deepest;
}

/// Throws FormatError where `text`, called `what` in messages, is not a JSON object or is nested deeper than
/// max_json_depth levels.
[[nodiscard]] inline nlohmann::json parse_json_object(std::string_view text, std::string_view file,
                                                      std::string_view what) {
    if (json_depth(text) > max_json_depth)
        malformed(file, what, " is nested deeper than ", max_json_depth, " levels");
    auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) malformed(file, what, " is not a JSON object");
    return json;
}

}  // namespace residua::io::detail
