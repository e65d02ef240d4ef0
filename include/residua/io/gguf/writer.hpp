#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/io/atomic_file.hpp"
#include "residua/io/gguf/blocks.hpp"

namespace residua::io {

/// Metadata of a GGUF file: 32-bit numbers, booleans and text.
using GGUFValue = std::variant<std::uint32_t, float, bool, std::string>;

struct GGUFEntry {
    std::string key;
    GGUFValue value;
};

/// A tensor to be written: ggml's type number, row-major shape (rows, ..., columns), data.
struct GGUFTensor {
    std::string name;
    std::uint32_t type = 0;
    std::vector<Index> shape;
    std::span<const std::byte> bytes;
};

/// The tensor of packed blocks, which have to outlive the result.
template <class G>
GGUFTensor gguf_tensor(std::string name, const std::vector<typename GGMLFormat<G>::Block>& blocks,
                       Index rows) {
    require(rows >= 1, "gguf_tensor: rows is", rows, "at least 1");
    return {std::move(name),
            GGMLFormat<G>::type,
            {rows, 32 * static_cast<Index>(blocks.size()) / rows},
            std::as_bytes(std::span(blocks))};
}

/// Tensors of the types F32 (0) and F16 (1), for the parts of a model that are not quantized.
inline GGUFTensor gguf_tensor(std::string name, std::vector<Index> shape, std::span<const float> values) {
    return {std::move(name), 0, std::move(shape), std::as_bytes(values)};
}
inline GGUFTensor gguf_tensor(std::string name, std::vector<Index> shape, std::span<const float16> values) {
    return {std::move(name), 1, std::move(shape), std::as_bytes(values)};
}

namespace detail {

inline constexpr std::size_t gguf_alignment = 32;

class GGUFBytes {
  public:
    template <class T>
    void number(T value) {
        const auto bytes = std::as_bytes(std::span(&value, 1));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }
    void text(std::string_view value) {
        number(static_cast<std::uint64_t>(value.size()));
        const auto bytes = std::as_bytes(std::span(value));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }
    void value(const GGUFValue& value) {
        // type numbers of the format: uint32 4, float32 6, bool 7, string 8
        static constexpr std::uint32_t types[] = {4, 6, 7, 8};
        number(types[value.index()]);
        if (const auto* u = std::get_if<std::uint32_t>(&value)) number(*u);
        if (const auto* f = std::get_if<float>(&value)) number(*f);
        if (const auto* b = std::get_if<bool>(&value)) number(static_cast<std::uint8_t>(*b));
        if (const auto* s = std::get_if<std::string>(&value)) text(*s);
    }
    void align() { bytes_.resize((bytes_.size() + gguf_alignment - 1) / gguf_alignment * gguf_alignment); }
    std::span<const std::byte> bytes() const { return bytes_; }

  private:
    std::vector<std::byte> bytes_;
};

}  // namespace detail

/// Writes a GGUF file, version 3: metadata and tensors in the given order. "general.quantization_version" = 2
/// is added; a model file needs "general.architecture" and that architecture's own keys. Atomic and throwing
/// like AtomicFile; std::invalid_argument for names that are empty, repeated or longer than 63 bytes (ggml's
/// limit) and for ranks other than 1 to 4.
inline void write_gguf(const std::filesystem::path& path, const std::vector<GGUFEntry>& metadata,
                       const std::vector<GGUFTensor>& tensors) {
    detail::GGUFBytes header;
    for (const char c : {'G', 'G', 'U', 'F'}) header.number(c);
    header.number(std::uint32_t(3));
    header.number(static_cast<std::uint64_t>(tensors.size()));
    header.number(static_cast<std::uint64_t>(metadata.size() + 1));
    for (const GGUFEntry& entry : metadata) {
        require(!entry.key.empty() && entry.key.size() <= 65535, "write_gguf: a metadata key has bytes",
                entry.key.size(), "1 to 65535");
        header.text(entry.key);
        header.value(entry.value);
    }
    header.text("general.quantization_version");
    header.value(std::uint32_t(2));

    const auto padded = [](std::size_t size) {
        return (size + detail::gguf_alignment - 1) / detail::gguf_alignment * detail::gguf_alignment;
    };
    std::set<std::string_view> names;
    std::uint64_t offset = 0;
    for (const GGUFTensor& tensor : tensors) {
        require(!tensor.name.empty() && tensor.name.size() < 64, "write_gguf: a tensor's name has bytes",
                tensor.name.size(), "1 to 63");
        require(names.insert(tensor.name).second, "write_gguf: tensor '" + tensor.name + "' is given",
                "twice", "once");
        require(!tensor.shape.empty() && tensor.shape.size() <= 4,
                "write_gguf: tensor '" + tensor.name + "' has rank", tensor.shape.size(), "1 to 4");
        header.text(tensor.name);
        header.number(static_cast<std::uint32_t>(tensor.shape.size()));
        for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent)
            header.number(static_cast<std::uint64_t>(*extent));  // the contiguous dimension first
        header.number(tensor.type);
        header.number(offset);
        offset += padded(tensor.bytes.size());
    }
    header.align();

    AtomicFile file(path);
    file.append(header.bytes());
    static constexpr std::byte zeros[detail::gguf_alignment] = {};
    for (const GGUFTensor& tensor : tensors) {
        file.append(tensor.bytes);
        file.append(std::span(zeros).first(padded(tensor.bytes.size()) - tensor.bytes.size()));
    }
    file.commit();
}

}  // namespace residua::io
