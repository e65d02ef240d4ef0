#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "residua/io/strict_json.hpp"
#include "residua/io/tensor_table.hpp"

namespace residua::io::detail {

/// Key of the header that is no tensor.
inline constexpr std::string_view metadata_key = "__metadata__";

inline constexpr std::size_t max_rank = 64;

/// A tensor as the header declares it: bytes [begin, end) of the data, `bytes` still empty.
struct DeclaredTensor {
    TensorInfo info;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
};

/// What a header says, each value of the right kind; whether the offsets make sense is for the layout to say.
struct SafetensorsHeader {
    std::map<std::string, DeclaredTensor, std::less<>> tensors;
    Metadata metadata;
};

/// { "__metadata__": { string: string, ... },
///   "<tensor>": { "dtype": string, "shape": [unsigned, ...], "data_offsets": [begin, end] }, ... }
///
/// Fields of any other name are refused: nothing says how they change the meaning of the data.
class HeaderHandler final : public StrictHandler {
  public:
    explicit HeaderHandler(std::string_view file) : StrictHandler(file, "the header") {}

    SafetensorsHeader take() { return std::move(header_); }

    bool start_object(std::size_t) override {
        switch (where_) {
            case Where::Start:
                where_ = Where::Table;
                return true;
            case Where::Table:
                where_ = tensor_ == nullptr ? Where::Metadata : Where::Tensor;
                seen_ = {};
                return true;
            default:
                unexpected("an object");
        }
    }

    bool key(string_t& name) override {
        switch (where_) {
            case Where::Table:
                begin_entry(name);
                break;
            case Where::Metadata:
                key_ = name;
                if (!header_.metadata.try_emplace(name).second)
                    malformed(file_, "key ", in_quotes(name), " occurs twice in ", metadata_key);
                break;
            default:
                begin_field(name);
                break;
        }
        return true;
    }

    bool end_object() override {
        if (where_ == Where::Tensor) {
            for (std::size_t i = 0; i < fields.size(); ++i) {
                if (!seen_[i])
                    malformed(file_, "tensor ", in_quotes(tensor_->info.name), " has no ", fields[i]);
            }
        }
        where_ = Where::Table;
        return true;
    }

    bool string(string_t& value) override {
        if (where_ == Where::Metadata) {
            header_.metadata.find(key_)->second = value;
            return true;
        }
        if (where_ != Where::Tensor || field_ != Field::Dtype) unexpected("the string " + in_quotes(value));
        const auto dtype = dtype_named(value);
        if (!dtype) unexpected(in_quotes(value));
        tensor_->info.dtype = *dtype;
        return true;
    }

    bool start_array(std::size_t) override {
        if (where_ != Where::Tensor || field_ == Field::Dtype) unexpected("an array");
        where_ = Where::Array;
        offsets_ = 0;
        return true;
    }

    bool end_array() override {
        if (field_ == Field::Offsets && offsets_ != 2) unexpected("an array of " + std::to_string(offsets_));
        where_ = Where::Tensor;
        return true;
    }

    bool number_unsigned(number_unsigned_t value) override {
        if (where_ != Where::Array) unexpected(std::to_string(value));
        if (field_ == Field::Offsets) {
            if (offsets_ == 2) unexpected("an array of more than 2");
            (offsets_++ == 0 ? tensor_->begin : tensor_->end) = value;
            return true;
        }
        if (std::cmp_greater(value, std::numeric_limits<Index>::max())) unexpected(std::to_string(value));
        if (tensor_->info.shape.size() == max_rank) unexpected("an array of more than 64");
        tensor_->info.shape.push_back(static_cast<Index>(value));
        return true;
    }

  private:
    enum class Where { Start, Table, Metadata, Tensor, Array };
    enum class Field { Dtype, Shape, Offsets };
    static constexpr std::array<std::string_view, 3> fields = {"dtype", "shape", "data_offsets"};

    void begin_entry(const std::string& name) {
        key_ = name;
        tensor_ = nullptr;
        if (name == metadata_key) {
            if (std::exchange(has_metadata_, true)) malformed(file_, metadata_key, " occurs twice");
            return;
        }
        const auto [at, is_new] = header_.tensors.try_emplace(name);
        if (!is_new) malformed(file_, "tensor ", in_quotes(name), " occurs twice");
        tensor_ = &at->second;
        tensor_->info.name = name;
    }

    void begin_field(const std::string& name) {
        const auto at = std::ranges::find(fields, name);
        if (at == fields.end())
            malformed(file_, "tensor ", in_quotes(tensor_->info.name), " has the field ", in_quotes(name),
                      ", expected dtype, shape and data_offsets only");
        const auto number = static_cast<std::size_t>(at - fields.begin());
        if (std::exchange(seen_[number], true))
            malformed(file_, "tensor ", in_quotes(tensor_->info.name), " has ", name, " twice");
        field_ = static_cast<Field>(number);
    }

    Place place() const override {
        const bool in_tensor = where_ == Where::Tensor || where_ == Where::Array;
        if (where_ == Where::Start) return {"the header", "an object"};
        if (where_ == Where::Metadata) return {"metadata " + in_quotes(key_), "a string"};
        if (!in_tensor) return {(tensor_ == nullptr ? "" : "tensor ") + in_quotes(key_), "an object"};
        return {std::string(fields[static_cast<std::size_t>(field_)]) + " of tensor " +
                    in_quotes(tensor_->info.name),
                field_ == Field::Dtype
                    ? "one of BOOL, U8, I8, F8_E4M3, F8_E5M2, F8_E8M0, U16, I16, F16, BF16, "
                      "U32, I32, F32, U64, I64, F64, C64"
                : field_ == Field::Shape ? "an array of at most 64 whole numbers from 0 to 2^63 - 1"
                                         : "an array of 2 whole numbers from 0 to 2^64 - 1"};
    }

    SafetensorsHeader header_;
    Where where_ = Where::Start;
    bool has_metadata_ = false;
    std::string key_;                   // of the table or of the metadata
    DeclaredTensor* tensor_ = nullptr;  // none: the entry is the metadata
    Field field_ = Field::Dtype;
    std::array<bool, 3> seen_ = {};
    int offsets_ = 0;
};

}  // namespace residua::io::detail
