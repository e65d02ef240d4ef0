#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "residua/io/error.hpp"
#include "residua/io/gguf/blocks.hpp"
#include "residua/io/gguf/super_blocks.hpp"
#include "residua/io/gguf/tensor.hpp"
#include "residua/io/mapped_file.hpp"

namespace residua::io {

/// Tensors of a GGUF file, versions 2 and 3, mapped into memory. Tensors of types other than GGMLType's are
/// listed without bytes. Metadata are skipped.
///
/// Tensors' bytes live as long as the file object. Throws FileError where the file cannot be read and
/// FormatError where it is not a valid GGUF file.
class GGUFFile {
  public:
    explicit GGUFFile(const std::filesystem::path& path) : source_(path.string()), file_(path) { parse(); }

    /// The path, for messages.
    [[nodiscard]] const std::string& source() const { return source_; }

    /// In the order of the file.
    [[nodiscard]] const std::vector<GGUFTensor>& tensors() const { return tensors_; }

    /// Throws FormatError where there is none of that name.
    [[nodiscard]] const GGUFTensor& tensor(std::string_view name) const {
        for (const GGUFTensor& tensor : tensors_) {
            if (tensor.name == name) return tensor;
        }
        detail::malformed(source_, "there is no tensor ", detail::in_quotes(name));
    }

    /// The layer that a tensor of the grid's type holds. Throws FormatError for other types and ranks,
    /// std::invalid_argument where a block holds what no fit makes.
    template <class G>
    [[nodiscard]] QuantizedLayer<G> layer(std::string_view name) const {
        const GGUFTensor& found = tensor(name);
        const auto require_type = [&](bool matches, const std::string& types) {
            if (!matches || found.shape.size() != 2 || found.bytes.empty())
                detail::malformed(source_, "tensor ", detail::in_quotes(name), " has type ",
                                  name_of(found.type), " and rank ", found.shape.size(),
                                  ", expected a matrix of ", types);
        };
        if constexpr (TwoLevelGrid<G, float>) {
            std::string types;
            bool matches = false;
            for (const G& grid : detail::grids_like(G{})) {
                types += (types.empty() ? "" : " or ") + name_of(ggml_type_of(grid));
                matches = matches || ggml_type_of(grid) == found.type;
            }
            require_type(matches, types);
            return unpack_super_blocks<G>(found.type, found.bytes, found.shape[0]);
        } else {
            using Block = typename GGMLFormat<G>::Block;
            require_type(found.type == GGMLFormat<G>::type, GGMLFormat<G>::name);
            std::vector<Block> blocks(found.bytes.size() / sizeof(Block));
            std::memcpy(static_cast<void*>(blocks.data()), found.bytes.data(), found.bytes.size());
            return unpack_ggml<G>(blocks, found.shape[0]);
        }
    }

  private:
    std::span<const std::byte> take(std::uint64_t size) {
        if (size > file_.bytes().size() - at_)
            detail::malformed(source_, "the file ends at byte ", file_.bytes().size(), ", expected ", size,
                              " more bytes at ", at_);
        const auto bytes = file_.bytes().subspan(at_, size);
        at_ += size;
        return bytes;
    }
    template <class T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof value).data(), sizeof value);
        return value;
    }
    std::string text() {
        const auto bytes = take(number<std::uint64_t>());
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    void skip_value(std::uint32_t number_of_type, int depth = 0) {
        using detail::GGUFValueType;
        static constexpr int max_depth = 4;
        const auto type = static_cast<GGUFValueType>(number_of_type);
        if (type == GGUFValueType::String) {
            (void)take(number<std::uint64_t>());
        } else if (type == GGUFValueType::Array && depth < max_depth) {
            const auto element = number<std::uint32_t>();
            const auto count = number<std::uint64_t>();
            // Every element takes a byte or more: a count that lies ends the file at once.
            if (const auto size = value_size(element); size > 0 && count <= file_.bytes().size())
                (void)take(count * size);
            else
                for (std::uint64_t i = 0; i < count; ++i) skip_value(element, depth + 1);
        } else if (const auto size = value_size(number_of_type); size > 0) {
            (void)take(size);
        } else if (type == GGUFValueType::Array) {
            detail::malformed(source_, "the metadata value at byte ", at_, " is nested deeper than ",
                              max_depth, " levels");
        } else {
            detail::malformed(source_, "the metadata value at byte ", at_, " has type ", number_of_type,
                              ", expected 0 to 12");
        }
    }

    /// 0 for a type of no fixed size, or of none at all.
    static std::uint64_t value_size(std::uint32_t type) {
        return type < detail::gguf_value_sizes.size() ? detail::gguf_value_sizes[type] : 0;
    }

    void parse() {
        const auto magic = take(sizeof detail::gguf_magic);
        if (std::memcmp(magic.data(), detail::gguf_magic, magic.size()) != 0)
            detail::malformed(source_, "this is no GGUF file: the first bytes are not GGUF");
        const auto version = number<std::uint32_t>();
        if (version != 2 && version != 3)
            detail::malformed(source_, "the version is ", version, ", expected 2 or 3");
        const auto tensor_count = number<std::uint64_t>();
        const auto entry_count = number<std::uint64_t>();
        std::uint64_t alignment = detail::gguf_alignment;
        for (std::uint64_t i = 0; i < entry_count; ++i) {
            const std::string key = text();
            const auto type = number<std::uint32_t>();
            if (key == "general.alignment" &&
                type == static_cast<std::uint32_t>(detail::GGUFValueType::UInt32)) {
                alignment = number<std::uint32_t>();
                if (alignment == 0 || (alignment & (alignment - 1)) != 0)
                    detail::malformed(source_, "general.alignment is ", alignment,
                                      ", expected a power of two");
            } else {
                skip_value(type);
            }
        }
        std::vector<std::uint64_t> offsets;
        std::set<std::string> names;
        for (std::uint64_t i = 0; i < tensor_count; ++i) {
            tensors_.push_back(parse_tensor(offsets));
            if (!names.insert(tensors_.back().name).second)
                detail::malformed(source_, "tensor ", detail::in_quotes(tensors_.back().name),
                                  " occurs twice");
        }
        const std::uint64_t gap = (alignment - at_ % alignment) % alignment;
        if (tensors_.empty()) return;
        (void)take(gap);
        const std::uint64_t data = at_;
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            if (offsets[i] % alignment != 0 || offsets[i] > file_.bytes().size() - data)
                detail::malformed(source_, "tensor ", detail::in_quotes(tensors_[i].name), " has offset ",
                                  offsets[i], ", expected a multiple of ", alignment, " inside the file");
            at_ = data + offsets[i];
            if (const auto size = byte_count(tensors_[i])) tensors_[i].bytes = take(*size);
        }
    }

    GGUFTensor parse_tensor(std::vector<std::uint64_t>& offsets) {
        GGUFTensor tensor{.name = text(), .shape = {}, .bytes = {}};
        const auto rank = number<std::uint32_t>();
        if (rank < 1 || rank > detail::gguf_max_rank)
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has rank ", rank,
                              ", expected 1 to 4");
        std::uint64_t elements = 1;
        for (std::uint32_t d = 0; d < rank; ++d) {
            const auto extent = number<std::uint64_t>();
            if (extent == 0 || extent > (std::uint64_t(1) << 48) / elements)
                detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has the extent ",
                                  extent, ", expected 1 or more, and less than 2^48 elements");
            elements *= extent;
            tensor.shape.insert(tensor.shape.begin(), static_cast<Index>(extent));
        }
        tensor.type = static_cast<GGMLType>(number<std::uint32_t>());
        offsets.push_back(number<std::uint64_t>());
        return tensor;
    }

    /// Empty where the type is not known.
    std::optional<std::uint64_t> byte_count(const GGUFTensor& tensor) const {
        const auto* facts = detail::facts_of(tensor.type);
        if (!facts) return std::nullopt;
        // A row is made of whole blocks.
        if (tensor.shape.back() % facts->elements != 0)
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has rows of ",
                              tensor.shape.back(), " elements, expected a multiple of ", facts->elements,
                              ", a block of ", facts->name);
        return static_cast<std::uint64_t>(detail::byte_count(*facts, tensor.shape));
    }

    std::string source_;
    MappedFile file_;
    std::size_t at_ = 0;
    std::vector<GGUFTensor> tensors_;
};

}  // namespace residua::io
