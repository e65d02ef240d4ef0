#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "residua/io/safetensors/header.hpp"
#include "residua/io/tensor_shape.hpp"
#include "residua/io/tensor_table.hpp"

namespace residua::io {

namespace detail {

/// product(shape) * element_size in bytes. Empty on overflow, zeros left out: the strides of an empty tensor
/// fit.
[[nodiscard]] inline std::optional<Index> byte_count(std::span<const Index> shape, std::size_t element_size) {
    auto count = static_cast<Index>(element_size);
    bool is_empty = false;
    for (const Index extent : shape) {
        if (extent == 0) {
            is_empty = true;
            continue;
        }
        if (extent > std::numeric_limits<Index>::max() / count) return std::nullopt;
        count *= extent;
    }
    return is_empty ? 0 : count;
}

/// Gives every declared tensor its bytes of `data`, which the tensors have to cover without overlaps and
/// holes.
[[nodiscard]] inline std::vector<TensorInfo> lay_out(SafetensorsHeader& header,
                                                     std::span<const std::byte> data, std::string_view file) {
    std::vector<DeclaredTensor*> by_offset;
    for (auto& [name, tensor] : header.tensors) {
        if (tensor.begin > tensor.end || tensor.end > data.size())
            malformed(file, "tensor ", in_quotes(name), " has data_offsets [", tensor.begin, ", ", tensor.end,
                      "], expected begin <= end <= ", data.size(), ", the size of the data");
        const std::optional<Index> size = byte_count(tensor.info.shape, size_of(tensor.info.dtype));
        if (!size)
            malformed(file, "tensor ", in_quotes(name), " has shape ", text_of(tensor.info.shape), " of ",
                      name_of(tensor.info.dtype), ", expected less than 2^63 bytes");
        if (std::cmp_not_equal(*size, tensor.end - tensor.begin))
            malformed(file, "tensor ", in_quotes(name), " has data_offsets [", tensor.begin, ", ", tensor.end,
                      "], ", tensor.end - tensor.begin, " bytes, expected ", *size, " for shape ",
                      text_of(tensor.info.shape), " of ", name_of(tensor.info.dtype));
        by_offset.push_back(&tensor);
    }
    std::ranges::sort(by_offset, {}, [](const DeclaredTensor* t) { return std::pair(t->begin, t->end); });

    std::vector<TensorInfo> tensors;
    std::uint64_t covered = 0;
    for (DeclaredTensor* tensor : by_offset) {
        if (tensor->begin != covered)
            malformed(
                file, "tensor ", in_quotes(tensor->info.name), " starts at ", tensor->begin, ", expected ",
                covered,
                tensor->begin < covered ? ": it overlaps the tensor before" : ": there is a hole before it");
        covered = tensor->end;
        tensor->info.bytes = data.subspan(tensor->begin, tensor->end - tensor->begin);
        tensors.push_back(std::move(tensor->info));
    }
    if (covered != data.size())
        malformed(file, "the tensors end at ", covered, ", expected ", data.size(), ", the size of the data");
    return tensors;
}

}  // namespace detail

/// The tensors of a safetensors file that is already in memory; the bytes stay the caller's.
///
/// A file is  u64 header size, little endian | header, a JSON object | data.  Nothing in it is taken on
/// trust: parse() checks all of it but the values of the elements, so that whatever the table gives out lies
/// inside the data. Where the format's own reader is lenient, this one is not: repeated metadata keys, a
/// metadata entry that is null, and fields of a tensor other than dtype, shape and data_offsets are refused.
/// Dtypes narrower than a byte (F4, F6) are not supported.
class SafetensorsView : public TensorTable {
  public:
    /// `file` has to outlive the view; `name` is for messages. Throws FormatError where the file is not
    /// valid. Takes O(size of the header), whatever the size of the data.
    [[nodiscard]] static SafetensorsView parse(std::span<const std::byte> file, std::string name) {
        using detail::malformed;
        std::uint64_t header_size = 0;
        if (file.size() < sizeof header_size)
            malformed(name, "the file has ", file.size(), " bytes, expected at least 8");
        std::memcpy(&header_size, file.data(), sizeof header_size);
        const auto rest = file.subspan(sizeof header_size);
        if (header_size > detail::max_json_size)
            malformed(name, "the size of the header is ", header_size, ", expected at most ",
                      detail::max_json_size);
        if (header_size > rest.size())
            malformed(name, "the size of the header is ", header_size, ", expected at most ", rest.size(),
                      " in a file of ", file.size(), " bytes");

        const auto size = static_cast<std::size_t>(header_size);
        detail::HeaderHandler handler(name);
        detail::parse_strict_json({reinterpret_cast<const char*>(rest.data()), size}, name, "the header",
                                  handler);
        detail::SafetensorsHeader header = handler.take();
        std::vector<TensorInfo> tensors = detail::lay_out(header, rest.subspan(size), name);
        SafetensorsView view;
        view.assign(std::move(name), std::move(tensors), std::move(header.metadata));
        return view;
    }

    SafetensorsView(SafetensorsView&&) = default;
    SafetensorsView& operator=(SafetensorsView&&) = default;

  private:
    SafetensorsView() = default;
};

}  // namespace residua::io
