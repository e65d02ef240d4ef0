#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/io/atomic_file.hpp"
#include "residua/io/error.hpp"
#include "residua/io/gguf/blocks.hpp"
#include "residua/io/gguf/super_blocks.hpp"
#include "residua/io/gguf/tensor.hpp"

namespace residua::io {

/// Metadata of a GGUF file: 32-bit numbers, booleans and text, and lists of text and of numbers.
using GGUFValue = std::variant<std::uint32_t, float, bool, std::string, std::vector<std::string>,
                               std::vector<std::int32_t>>;

struct GGUFEntry {
    std::string key;
    GGUFValue value;
};

/// The tensor of packed blocks, which have to outlive the result.
template <class G>
[[nodiscard]] GGUFTensor gguf_tensor(std::string name,
                                     const std::vector<typename GGMLFormat<G>::Block>& blocks, Index rows) {
    require(rows >= 1, "gguf_tensor: rows is", rows, "at least 1");
    return {std::move(name),
            GGMLFormat<G>::type,
            {rows, G::group_size * static_cast<Index>(blocks.size()) / rows},
            std::as_bytes(std::span(blocks))};
}

[[nodiscard]] inline GGUFTensor gguf_tensor(std::string name, const GGMLMatrix& matrix) {
    return {std::move(name), matrix.type, {matrix.rows, matrix.cols}, matrix.bytes};
}

/// A tensor of the type F32 or F16, for the parts of a model that are not quantized: `values` row-major,
/// which have to outlive the result.
[[nodiscard]] inline GGUFTensor gguf_tensor(std::string name, std::vector<Index> shape,
                                            std::span<const float> values) {
    return {std::move(name), GGMLType::F32, std::move(shape), std::as_bytes(values)};
}
[[nodiscard]] inline GGUFTensor gguf_tensor(std::string name, std::vector<Index> shape,
                                            std::span<const float16> values) {
    return {std::move(name), GGMLType::F16, std::move(shape), std::as_bytes(values)};
}

namespace detail {

class GGUFBytes {
  public:
    template <class T>
    void number(T value) {
        append(std::as_bytes(std::span(&value, 1)));
    }
    void text(std::string_view value) {
        number(static_cast<std::uint64_t>(value.size()));
        append(std::as_bytes(std::span(value)));
    }
    void value(const GGUFValue& value) {
        if (const auto* u = std::get_if<std::uint32_t>(&value)) typed(GGUFValueType::UInt32, *u);
        if (const auto* f = std::get_if<float>(&value)) typed(GGUFValueType::Float32, *f);
        if (const auto* b = std::get_if<bool>(&value))
            typed(GGUFValueType::Bool, static_cast<std::uint8_t>(*b));
        if (const auto* s = std::get_if<std::string>(&value)) {
            number(GGUFValueType::String);
            text(*s);
        }
        if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
            array(GGUFValueType::String, list->size());
            for (const std::string& s : *list) text(s);
        }
        if (const auto* list = std::get_if<std::vector<std::int32_t>>(&value)) {
            array(GGUFValueType::Int32, list->size());
            for (const std::int32_t i : *list) number(i);
        }
    }
    void append(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
    void align() { bytes_.resize(aligned(bytes_.size())); }
    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

    /// `size` and the padding behind it.
    static std::size_t aligned(std::size_t size) {
        return (size + gguf_alignment - 1) / gguf_alignment * gguf_alignment;
    }

  private:
    void array(GGUFValueType of, std::size_t size) {
        number(GGUFValueType::Array);
        number(of);
        number(static_cast<std::uint64_t>(size));
    }
    template <class T>
    void typed(GGUFValueType type, T value) {
        number(type);
        number(value);
    }

    std::vector<std::byte> bytes_;
};

/// Throws std::invalid_argument for what ggml refuses, and for data that do not fill the shape.
inline void require_writable(const GGUFTensor& tensor) {
    require(!tensor.name.empty() && tensor.name.size() < 64,
            "write_gguf: the name " + in_quotes(tensor.name) + " of a tensor has",
            std::to_string(tensor.name.size()) + " bytes", "1 to 63");
    const std::string what = "write_gguf: tensor " + in_quotes(tensor.name);
    require(!tensor.shape.empty() && tensor.shape.size() <= gguf_max_rank, what + " has rank",
            tensor.shape.size(), "1 to 4");
    Index elements = 1;
    for (const Index extent : tensor.shape) {
        require(extent >= 1 && extent <= std::numeric_limits<Index>::max() / 64 / elements,
                what + " has the extent", extent, "at least 1, and no more elements than memory has bytes");
        elements *= extent;
    }
    if (const GGMLTypeFacts* facts = facts_of(tensor.type)) {
        require(tensor.shape.back() % facts->elements == 0, what + " has columns:", tensor.shape.back(),
                "a multiple of " + std::to_string(facts->elements) + ", a block of " + facts->name);
        const Index bytes = byte_count(*facts, tensor.shape);
        require(std::cmp_equal(tensor.bytes.size(), bytes), what + " has",
                std::to_string(tensor.bytes.size()) + " bytes of data",
                std::to_string(bytes) + " for its shape and type " + facts->name);
    }
}

}  // namespace detail

/// Writes a GGUF file, version 3: metadata and tensors in the given order. "general.quantization_version" = 2
/// is added; a model file needs "general.architecture" and that architecture's own keys.
///
/// Atomic and throwing like AtomicFile. Throws std::invalid_argument for keys that are empty or longer than
/// 65535 bytes, for tensors with names that are empty, repeated or longer than 63 bytes (ggml's limit), with
/// ranks other than 1 to 4, and with data that do not fill their shape.
inline void write_gguf(const std::filesystem::path& path, const std::vector<GGUFEntry>& metadata,
                       const std::vector<GGUFTensor>& tensors) {
    detail::GGUFBytes header;
    header.append(std::as_bytes(std::span(detail::gguf_magic)));
    header.number(std::uint32_t(3));
    header.number(static_cast<std::uint64_t>(tensors.size()));
    header.number(static_cast<std::uint64_t>(metadata.size() + 1));
    for (const GGUFEntry& entry : metadata) {
        require(!entry.key.empty() && entry.key.size() <= 65535,
                "write_gguf: the metadata key " + detail::in_quotes(entry.key) + " has",
                std::to_string(entry.key.size()) + " bytes", "1 to 65535");
        header.text(entry.key);
        header.value(entry.value);
    }
    header.text("general.quantization_version");
    header.value(std::uint32_t(2));

    std::set<std::string_view> names;
    std::uint64_t offset = 0;
    for (const GGUFTensor& tensor : tensors) {
        detail::require_writable(tensor);
        require(names.insert(tensor.name).second,
                "write_gguf: tensor " + detail::in_quotes(tensor.name) + " is given", "twice", "once");
        header.text(tensor.name);
        header.number(static_cast<std::uint32_t>(tensor.shape.size()));
        for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent)
            header.number(static_cast<std::uint64_t>(*extent));  // the contiguous dimension first
        header.number(tensor.type);
        header.number(offset);
        offset += detail::GGUFBytes::aligned(tensor.bytes.size());
    }
    header.align();

    AtomicFile file(path);
    file.append(header.bytes());
    static constexpr std::byte zeros[detail::gguf_alignment] = {};
    for (const GGUFTensor& tensor : tensors) {
        const std::size_t size = tensor.bytes.size();
        file.append(tensor.bytes);
        file.append(std::span(zeros).first(detail::GGUFBytes::aligned(size) - size));
    }
    file.commit();
}

}  // namespace residua::io
