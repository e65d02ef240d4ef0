#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "residua/io/error.hpp"

/// Reading JSON from files that nobody vouches for.
///
/// A document is never turned into a tree: a handler takes its events one by one and refuses the first that
/// does not fit, so that neither duplicate keys, which a tree would hide, nor depth, nor kinds of numbers
/// need a second look.
namespace residua::io::detail {

/// Largest JSON text that is read: the limit of the safetensors format for its header.
inline constexpr std::size_t max_json_size = 100'000'000;

/// Refuses everything; a handler overrides the events that it has a use for, and falls back on these.
class StrictHandler : public nlohmann::json_sax<nlohmann::json> {
  public:
    bool null() override { unexpected("null"); }
    bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
    bool number_integer(number_integer_t value) override { unexpected(std::to_string(value)); }
    bool number_unsigned(number_unsigned_t value) override { unexpected(std::to_string(value)); }
    bool number_float(number_float_t, const string_t& text) override { unexpected(text.substr(0, 40)); }
    bool string(string_t& value) override { unexpected("the string " + in_quotes(value)); }
    bool binary(binary_t&) override { unexpected("binary data"); }
    bool start_object(std::size_t) override { unexpected("an object"); }
    bool start_array(std::size_t) override { unexpected("an array"); }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) final {
        std::string reason = error.what();  // holds the offending bytes as they are
        for (char& c : reason) {
            if (static_cast<unsigned char>(c) >= 0x7fu) c = '?';
        }
        malformed(file_, what_, " is not JSON (byte ", position, ": ", in_quotes(reason, 200), ")");
    }

  protected:
    StrictHandler(std::string_view file, std::string_view what) : file_(file), what_(what) {}

    /// Where in the document the handler is, and what it would accept there.
    struct Place {
        std::string where;
        std::string_view expected;
    };
    [[nodiscard]] virtual Place place() const = 0;

    [[noreturn]] void unexpected(std::string_view found) const {
        const Place here = place();
        malformed(file_, here.where, " is ", found, ", expected ", here.expected);
    }

    std::string_view file_;
    std::string_view what_;  // "the header", "the index"
};

/// Feeds `text`, which is to be one JSON object, to `handler`. Throws FormatError.
inline void parse_strict_json(std::string_view text, std::string_view file, std::string_view what,
                              StrictHandler& handler) {
    if (text.size() > max_json_size)
        malformed(file, what, " has ", text.size(), " bytes, expected at most ", max_json_size);
    // The parser would skip a byte order mark, and would take a zero byte for the end of the text.
    if (text.empty() || text.front() != '{')
        malformed(file, what, " starts with ", in_quotes(text.substr(0, 1)), ", expected '{'");
    if (const auto zero = text.find('\0'); zero != std::string_view::npos)
        malformed(file, what, " holds a zero byte at ", zero, ", expected JSON");
    nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
}

}  // namespace residua::io::detail
