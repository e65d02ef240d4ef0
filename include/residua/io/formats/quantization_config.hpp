#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "residua/io/error.hpp"

/// The JSON object that says how a model is quantized: its settings, and that of compressed-tensors.
namespace residua::io::detail {

/// The text of `json` for messages, whatever bytes it holds.
[[nodiscard]] inline std::string shown(const nlohmann::json& json) {
    return in_quotes(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

/// A number, boolean or text of a quantization_config at `path`, a JSON pointer; `otherwise` where it is
/// absent or null. Throws FormatError where it is of another kind or beyond a T, or is absent and has no
/// `otherwise`.
template <class T>
[[nodiscard]] T setting(const nlohmann::json& config, const std::string& path,
                        const std::optional<T>& otherwise = std::nullopt) {
    const nlohmann::json::json_pointer at(path);
    const nlohmann::json value = config.is_object() && config.contains(at) ? config.at(at) : nlohmann::json();
    if (value.is_null() && otherwise) return *otherwise;
    const auto expect = [&](bool fits, const std::string& kind) {
        if (!fits)
            malformed("quantization_config", path.substr(1), " is ", shown(value), ", expected ", kind);
    };
    if constexpr (std::same_as<T, bool>) {
        expect(value.is_boolean(), "true or false");
    } else if constexpr (std::integral<T>) {
        expect(value.is_number_integer(), "a whole number");
        const bool in_range = value.is_number_unsigned() ? std::in_range<T>(value.get<std::uint64_t>())
                                                         : std::in_range<T>(value.get<std::int64_t>());
        expect(in_range, "a number of at most " + std::to_string(std::numeric_limits<T>::digits) + " bits");
    } else {
        expect(value.is_string(), "a string");
    }
    return value.get<T>();
}

/// quantization_config of a compressed-tensors checkpoint whose linear layers, but `ignore`, all have the
/// scheme `weights`.
[[nodiscard]] inline nlohmann::json compressed_tensors_config(const char* format,
                                                              const nlohmann::json& weights,
                                                              const std::vector<std::string>& ignore) {
    return {{"quant_method", "compressed-tensors"},
            {"format", format},
            {"quantization_status", "compressed"},
            {"ignore", ignore},
            {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}};
}

}  // namespace residua::io::detail
