#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "residua/io/strict_json.hpp"

namespace residua::io::detail {

/// Tensor name -> name of the file, in the index's own directory, that holds the tensor.
using WeightMap = std::map<std::string, std::string, std::less<>>;

/// A shard lies beside its index: a name that leads elsewhere must not be followed.
[[nodiscard]] inline bool is_plain_file_name(std::string_view name) {
    const auto is_forbidden = [](char c) {
        return static_cast<unsigned char>(c) < 0x20u || c == 0x7f || c == '/' || c == '\\' || c == ':';
    };
    return !name.empty() && name != "." && name != ".." && std::ranges::none_of(name, is_forbidden);
}

/// { "weight_map": { "<tensor>": "<file name>", ... }, ... }, whatever else it holds being skipped.
class IndexHandler final : public StrictHandler {
  public:
    explicit IndexHandler(std::string_view file) : StrictHandler(file, "the index") {}

    WeightMap take() {
        if (!has_map_) malformed(file_, "the index has no weight_map");
        return std::move(map_);
    }

    bool key(string_t& name) override {
        if (depth_ == 1) {
            in_map_ = name == "weight_map";
            if (in_map_ && std::exchange(has_map_, true)) malformed(file_, "weight_map occurs twice");
        } else if (in_map_) {
            if (!map_.try_emplace(name).second)
                malformed(file_, "tensor ", in_quotes(name), " occurs twice in weight_map");
        }
        key_ = name;
        return true;
    }

    bool string(string_t& value) override {
        if (!in_map_) return true;
        if (depth_ != 2) unexpected("the string " + in_quotes(value));
        if (!is_plain_file_name(value)) unexpected(in_quotes(value));
        map_.find(key_)->second = value;
        return true;
    }

    bool start_object(std::size_t) override {
        if (in_map_ && depth_ != 1) unexpected("an object");
        return descend();
    }
    bool end_object() override { return ascend(); }
    bool start_array(std::size_t) override { return in_map_ ? StrictHandler::start_array(0) : descend(); }
    bool end_array() override { return ascend(); }
    bool null() override { return in_map_ ? StrictHandler::null() : true; }
    bool boolean(bool value) override { return in_map_ ? StrictHandler::boolean(value) : true; }
    bool number_integer(number_integer_t value) override {
        return in_map_ ? StrictHandler::number_integer(value) : true;
    }
    bool number_unsigned(number_unsigned_t value) override {
        return in_map_ ? StrictHandler::number_unsigned(value) : true;
    }
    bool number_float(number_float_t value, const string_t& text) override {
        return in_map_ ? StrictHandler::number_float(value, text) : true;
    }

  private:
    static constexpr int max_depth = 32;

    bool descend() {
        if (++depth_ > max_depth) malformed(file_, "the index is nested deeper than ", max_depth, " levels");
        return true;
    }
    bool ascend() {
        --depth_;
        return true;
    }

    Place place() const override {
        if (depth_ == 1) return {"weight_map", "an object"};
        return {"weight_map entry " + in_quotes(key_), "the name of a file in the same directory"};
    }

    WeightMap map_;
    std::string key_;
    int depth_ = 0;
    bool in_map_ = false;
    bool has_map_ = false;
};

[[nodiscard]] inline WeightMap parse_index(std::string_view text, std::string_view name) {
    IndexHandler handler(name);
    parse_strict_json(text, name, "the index", handler);
    return handler.take();
}

}  // namespace residua::io::detail
