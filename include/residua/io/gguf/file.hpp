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
#include "residua/io/mapped_file.hpp"

namespace residua::io {

/// Tensors of a GGUF file, versions 2 and 3, mapped into memory. Types: F32, F16, BF16 and those that
/// ggml_blocks.hpp knows; tensors of other types are listed without bytes. Metadata are skipped.
///
/// Throws FileError where the file cannot be read and FormatError where it is not a valid GGUF file.
class GGUFFile {
  public:
    struct Tensor {
        std::string name;
        std::uint32_t type = 0;
        std::vector<Index> shape;          ///< row-major: (rows, ..., columns)
        std::span<const std::byte> bytes;  ///< empty where the type is unknown
    };

    explicit GGUFFile(const std::filesystem::path& path) : source_(path.string()), file_(path) { parse(); }

    const std::string& source() const { return source_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }

    const Tensor& tensor(std::string_view name) const {
        for (const Tensor& tensor : tensors_) {
            if (tensor.name == name) return tensor;
        }
        detail::malformed(source_, "no tensor ", detail::in_quotes(name));
    }

    /// The layer that a tensor of the grid's type holds. Throws FormatError for other types and ranks.
    template <class G>
    QuantizedLayer<G> layer(std::string_view name) const {
        const Tensor& found = tensor(name);
        if (found.type != GGMLFormat<G>::type || found.shape.size() != 2 || found.bytes.empty())
            detail::malformed(source_, "tensor ", detail::in_quotes(name), " has type ", found.type,
                              " and rank ", found.shape.size(), ", expected a matrix of ",
                              GGMLFormat<G>::name);
        std::vector<typename GGMLFormat<G>::Block> blocks(found.bytes.size() /
                                                          sizeof(typename GGMLFormat<G>::Block));
        std::memcpy(static_cast<void*>(blocks.data()), found.bytes.data(), found.bytes.size());
        return unpack_ggml<G>(blocks, found.shape[0]);
    }

  private:
    struct BlockSize {
        std::uint64_t elements, bytes;
    };
    static std::optional<BlockSize> block_size(std::uint32_t type) {
        switch (type) {
            case 0:
                return BlockSize{1, 4};  // F32
            case 1:
                return BlockSize{1, 2};  // F16
            case 30:
                return BlockSize{1, 2};  // BF16
            case 2:
                return BlockSize{32, sizeof(BlockQ4_0)};
            case 3:
                return BlockSize{32, sizeof(BlockQ4_1)};
            case 6:
                return BlockSize{32, sizeof(BlockQ5_0)};
            case 7:
                return BlockSize{32, sizeof(BlockQ5_1)};
            case 8:
                return BlockSize{32, sizeof(BlockQ8_0)};
            case 39:
                return BlockSize{32, sizeof(BlockMXFP4)};
            default:
                return std::nullopt;
        }
    }

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

    void skip_value(std::uint32_t type, int depth = 0) {
        static constexpr std::uint64_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        if (type == 8) {
            (void)take(number<std::uint64_t>());
        } else if (type == 9 && depth < 4) {
            const auto element = number<std::uint32_t>();
            const auto count = number<std::uint64_t>();
            // every element takes a byte or more: a count that lies ends the file at once
            if (element < 13 && sizes[element] > 0 && count <= file_.bytes().size())
                (void)take(count * sizes[element]);
            else
                for (std::uint64_t i = 0; i < count; ++i) skip_value(element, depth + 1);
        } else if (type < 13 && sizes[type] > 0) {
            (void)take(sizes[type]);
        } else {
            detail::malformed(source_, "metadata value at byte ", at_, " has type ", type,
                              ", expected 0 to 12");
        }
    }

    void parse() {
        const auto magic = take(4);
        if (std::memcmp(magic.data(), "GGUF", 4) != 0) detail::malformed(source_, "not a GGUF file");
        const auto version = number<std::uint32_t>();
        if (version != 2 && version != 3)
            detail::malformed(source_, "GGUF version is ", version, ", expected 2 or 3");
        const auto tensor_count = number<std::uint64_t>();
        const auto entry_count = number<std::uint64_t>();
        std::uint64_t alignment = 32;
        for (std::uint64_t i = 0; i < entry_count; ++i) {
            const std::string key = text();
            const auto type = number<std::uint32_t>();
            if (key == "general.alignment" && type == 4) {
                alignment = number<std::uint32_t>();
                if (alignment == 0 || (alignment & (alignment - 1)) != 0)
                    detail::malformed(source_, "alignment is ", alignment, ", expected a power of two");
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
                                  " is there twice");
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

    Tensor parse_tensor(std::vector<std::uint64_t>& offsets) {
        Tensor tensor{.name = text(), .shape = {}, .bytes = {}};
        const auto rank = number<std::uint32_t>();
        if (rank < 1 || rank > 4)
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has rank ", rank,
                              ", expected 1 to 4");
        std::uint64_t elements = 1;
        for (std::uint32_t d = 0; d < rank; ++d) {
            const auto extent = number<std::uint64_t>();
            if (extent == 0 || extent > (std::uint64_t(1) << 48) / elements)
                detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has extent ", extent,
                                  ", expected 1 or more, and less than 2^48 elements");
            elements *= extent;
            tensor.shape.insert(tensor.shape.begin(), static_cast<Index>(extent));
        }
        tensor.type = number<std::uint32_t>();
        offsets.push_back(number<std::uint64_t>());
        return tensor;
    }

    std::optional<std::uint64_t> byte_count(const Tensor& tensor) const {
        const auto block = block_size(tensor.type);
        if (!block) return std::nullopt;
        if (static_cast<std::uint64_t>(tensor.shape.back()) % block->elements != 0)
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has rows of ",
                              tensor.shape.back(), " elements, expected a multiple of ", block->elements);
        std::uint64_t elements = 1;
        for (const Index extent : tensor.shape) elements *= static_cast<std::uint64_t>(extent);
        return elements / block->elements * block->bytes;
    }

    std::string source_;
    MappedFile file_;
    std::size_t at_ = 0;
    std::vector<Tensor> tensors_;
};

}  // namespace residua::io
