#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

/// Messages in the wire format of protocol buffers, in which ONNX files are written.
namespace residua::io::detail {

/// One message, field by field.
class ProtobufMessage {
  public:
    void number(int field, std::uint64_t value) {
        varint(static_cast<std::uint64_t>(field) << 3);
        varint(value);
    }
    void text(int field, std::string_view value) { data(field, std::as_bytes(std::span(value))); }
    void message(int field, const ProtobufMessage& value) { data(field, value.bytes_); }

    void data(int field, std::span<const std::byte> value) {
        varint(static_cast<std::uint64_t>(field) << 3 | 2);
        varint(value.size());
        bytes_.insert(bytes_.end(), value.begin(), value.end());
    }

    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

  private:
    /// Seven bits a byte, the lowest first.
    void varint(std::uint64_t value) {
        for (; value >= 128; value >>= 7) bytes_.push_back(static_cast<std::byte>(value | 128));
        bytes_.push_back(static_cast<std::byte>(value));
    }

    std::vector<std::byte> bytes_;
};

}  // namespace residua::io::detail
