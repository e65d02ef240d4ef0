#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <ranges>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/core/view.hpp"
#include "residua/io/atomic_file.hpp"
#include "residua/io/safetensors/view.hpp"
#include "residua/io/tensor_table.hpp"

namespace residua::io {

/// A tensor to be written: everything but its data.
struct TensorSpec {
    std::string name;
    DType dtype = DType::F32;
    std::vector<Index> shape;
};

/// Writes a safetensors file piece by piece; it appears under its name complete, by commit(), or not at all.
///
///     io::SafetensorsWriter writer(path, {{"scales", io::DType::F16, {m, groups}},
///                                        {"codes", io::DType::U8, {m, n}}});
///     writer.append("scales", scales);              // all of a tensor, or
///     for (Index i = 0; i < m; ++i)
///         writer.append("codes", codes_of_row(i));  // one piece after the other
///     writer.commit();
///
/// Tensors lie in the file as declared, and are to be appended in that order. Declare wide dtypes first where
/// readers are to view them in place: the format has no padding between tensors, only the first is aligned
/// (to 8 bytes). Equal input gives equal bytes.
///
/// Throws FileError where the system refuses (see AtomicFile), std::invalid_argument on misuse: names that
/// are reserved, repeated or not UTF-8, negative or overflowing shapes, data out of order, of another dtype,
/// too long, or, at commit(), too short.
class SafetensorsWriter {
  public:
    SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                      const Metadata& metadata = {})
        : SafetensorsWriter(path, header_of(tensors, metadata), std::move(tensors)) {}

    /// Appends elements (row-major) to the tensor `name`. `values` is contiguous; its elements have the
    /// tensor's dtype, or are std::byte: raw little endian data of any dtype, in pieces of any length.
    template <std::ranges::contiguous_range Values>
    requires std::ranges::sized_range<Values>
    void append(std::string_view name, const Values& values) {
        using T = std::remove_cvref_t<std::ranges::range_value_t<Values>>;
        const TensorSpec& tensor = current(name);
        if constexpr (!std::same_as<T, std::byte>) expect_dtype<T>(tensor);
        append_bytes(tensor, std::as_bytes(std::span(std::ranges::data(values), std::ranges::size(values))));
    }

    /// Appends whole rows: (rows, cols) at any stride.
    template <class T>
    requires Stored<std::remove_const_t<T>>
    void append(std::string_view name, MatrixView<T> rows) {
        const TensorSpec& tensor = current(name);
        expect_dtype<std::remove_const_t<T>>(tensor);
        for (Index i = 0; i < rows.rows; ++i)
            append_bytes(tensor, std::as_bytes(std::span(rows.row(i), static_cast<std::size_t>(rows.cols))));
    }

    /// Makes the file durable and gives it its name.
    void commit() {
        while (is_complete()) go_on();
        if (tensor_ < tensors_.size())
            reject(
                "SafetensorsWriter::commit: tensor " + detail::in_quotes(tensors_[tensor_].name) + " has got",
                std::to_string(written_) + " bytes", std::to_string(size_of_current()));
        file_.commit();
    }

  private:
    // By reference: the header is made of `tensors` before they are moved from.
    SafetensorsWriter(const std::filesystem::path& path, const std::string& header,
                      std::vector<TensorSpec>&& tensors)
        : file_(path), tensors_(std::move(tensors)) {
        const auto size = static_cast<std::uint64_t>(header.size());
        file_.append(std::as_bytes(std::span(&size, 1)));
        file_.append(std::as_bytes(std::span(header)));
    }

    static std::string json_of(std::string_view what, const std::string& text) {
        try {
            return nlohmann::json(text).dump();
        } catch (const nlohmann::json::exception&) {
            reject(std::string("SafetensorsWriter: the ").append(what).append(" is"), detail::in_quotes(text),
                   "UTF-8");
        }
    }

    /// The header, padded with spaces so that the data start at a multiple of 8.
    static std::string header_of(const std::vector<TensorSpec>& tensors, const Metadata& metadata) {
        std::string text = "{";
        const auto comma = [&] { return text.back() == '{' ? "" : ","; };
        if (!metadata.empty()) {
            text += "\"" + std::string(detail::metadata_key) + "\":{";
            for (const auto& [key, value] : metadata)
                text += comma() + json_of("key of a metadata entry", key) + ":" +
                        json_of("value of a metadata entry", value);
            text += "}";
        }
        std::set<std::string_view> names;
        Index begin = 0;
        for (const TensorSpec& tensor : tensors) {
            const std::string shown = "SafetensorsWriter: tensor " + detail::in_quotes(tensor.name);
            require(tensor.name != detail::metadata_key, "SafetensorsWriter: the name of a tensor is",
                    tensor.name, "another one: this is reserved for metadata");
            require(names.insert(tensor.name).second, shown + " is declared", "twice", "once");
            require(tensor.shape.size() <= detail::max_rank, shown + " has rank", tensor.shape.size(),
                    "at most " + std::to_string(detail::max_rank));
            const bool is_negative =
                std::ranges::any_of(tensor.shape, [](Index extent) { return extent < 0; });
            require(!is_negative, shown + " has shape", detail::text_of(tensor.shape), "no extent below 0");
            const auto size = detail::byte_count(tensor.shape, size_of(tensor.dtype));
            require(size && *size <= std::numeric_limits<Index>::max() - begin, shown + " has shape",
                    detail::text_of(tensor.shape), "less than 2^63 bytes in the file");
            text += comma() + json_of("name of a tensor", tensor.name) + ":{\"dtype\":\"" +
                    std::string(name_of(tensor.dtype));
            text += "\",\"shape\":" + detail::text_of(tensor.shape, ",") + ",\"data_offsets\":";
            text += detail::text_of(std::vector{begin, begin + *size}, ",") + "}";
            begin += *size;
        }
        text += "}";
        text.append((8 - text.size() % 8) % 8, ' ');
        require(text.size() <= detail::max_json_size, "SafetensorsWriter: the header has",
                std::to_string(text.size()) + " bytes", "at most " + std::to_string(detail::max_json_size));
        return text;
    }

    Index size_of_current() const {
        return detail::byte_count(tensors_[tensor_].shape, size_of(tensors_[tensor_].dtype)).value();
    }

    bool is_complete() const { return tensor_ < tensors_.size() && written_ == size_of_current(); }

    void go_on() {
        ++tensor_;
        written_ = 0;
    }

    /// The tensor that the next bytes belong to, which is to be `name`. An empty tensor may be named or left
    /// out.
    const TensorSpec& current(std::string_view name) {
        while (is_complete() && tensors_[tensor_].name != name) go_on();
        const std::string expected =
            tensor_ < tensors_.size() ? detail::in_quotes(tensors_[tensor_].name) : "no more data";
        require(tensor_ < tensors_.size() && tensors_[tensor_].name == name,
                "SafetensorsWriter::append: the tensor is", detail::in_quotes(name), expected);
        return tensors_[tensor_];
    }

    template <class T>
    static void expect_dtype(const TensorSpec& tensor) {
        static_assert(Stored<T>, "elements are float, double, float16, bfloat16, an integer or std::byte");
        require(dtype_of<T>() == tensor.dtype, "SafetensorsWriter::append: the elements are",
                name_of(dtype_of<T>()),
                std::string(name_of(tensor.dtype)) + " for tensor " + detail::in_quotes(tensor.name));
    }

    void append_bytes(const TensorSpec& tensor, std::span<const std::byte> bytes) {
        const Index left = size_of_current() - written_;
        require(std::cmp_less_equal(bytes.size(), left),
                "SafetensorsWriter::append: tensor " + detail::in_quotes(tensor.name) + " gets",
                std::to_string(bytes.size()) + " bytes more",
                "at most " + std::to_string(left) + ", which is what it still lacks");
        file_.append(bytes);
        written_ += static_cast<Index>(bytes.size());
    }

    AtomicFile file_;
    std::vector<TensorSpec> tensors_;
    std::size_t tensor_ = 0;  // the one being written
    Index written_ = 0;       // bytes of it
};

/// A tensor in memory, to be written: contiguous elements, row-major, which have to outlive the result.
/// The writer checks that `values` fill `shape`.
template <std::ranges::contiguous_range Values>
requires Stored<std::ranges::range_value_t<Values>>
[[nodiscard]] TensorInfo tensor_of(std::string name, std::vector<Index> shape, const Values& values) {
    return {std::move(name), dtype_of<std::ranges::range_value_t<Values>>(), std::move(shape),
            std::as_bytes(std::span(std::ranges::data(values), std::ranges::size(values)))};
}

/// Writes tensors that are in memory, widest dtype first and else in the given order, so that readers find
/// all of them aligned. Atomic, deterministic and throwing like SafetensorsWriter.
inline void write_safetensors(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                              const Metadata& metadata = {}) {
    std::ranges::stable_sort(tensors, std::ranges::greater{},
                             [](const TensorInfo& t) { return size_of(t.dtype); });
    std::vector<TensorSpec> specs;
    for (const TensorInfo& tensor : tensors) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    SafetensorsWriter writer(path, std::move(specs), metadata);
    for (const TensorInfo& tensor : tensors) writer.append(tensor.name, tensor.bytes);
    writer.commit();
}

}  // namespace residua::io
