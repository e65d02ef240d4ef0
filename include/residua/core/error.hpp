#pragma once

#include <sstream>
#include <stdexcept>
#include <string_view>

namespace residua {

/// Throws std::invalid_argument: "residua: <what> <value>, expected <expected>".
template <class Value>
[[noreturn]] void reject(std::string_view what, const Value& value, std::string_view expected) {
    std::ostringstream text;
    text << "residua: " << what << ' ' << value << ", expected " << expected;
    throw std::invalid_argument(text.str());
}

/// Misuse is reported by std::invalid_argument with the argument's name, its value and what was expected. The
/// text is a sentence, hence `what` ends in a verb:
///
///     require(bits >= 2 && bits <= 8, "IntegerGrid: bits is", bits, "2 to 8");
///     // residua: IntegerGrid: bits is 9, expected 2 to 8
template <class Value>
void require(bool condition, std::string_view what, const Value& value, std::string_view expected) {
    if (!condition) reject(what, value, expected);
}

}  // namespace residua
