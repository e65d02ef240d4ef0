#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "residua/core/types.hpp"
#include "residua/core/view.hpp"
#include "residua/io/dtype.hpp"
#include "residua/io/error.hpp"

namespace residua::io {

/// Free-form strings that travel with a file: its `__metadata__`.
using Metadata = std::map<std::string, std::string, std::less<>>;

/// A named row-major tensor, non-owning.
struct TensorInfo {
    std::string name;
    DType dtype = DType::U8;
    std::vector<Index> shape;          ///< empty: a scalar
    std::span<const std::byte> bytes;  ///< product(shape) * size_of(dtype) bytes, at any alignment

    [[nodiscard]] Index elements() const { return static_cast<Index>(bytes.size() / size_of(dtype)); }
};

/// Tensors by name: the interface that SafetensorsView, SafetensorsFile and SafetensorsCheckpoint share.
///
/// Every access to a tensor throws FormatError where there is none of that name, or where its dtype or shape
/// is not what the call asks for. Look-up takes O(log tensors). Reading is safe from several threads at once.
class TensorTable {
  public:
    /// Path or name for messages.
    [[nodiscard]] const std::string& source() const { return source_; }

    /// All tensors, in ascending order of their names.
    [[nodiscard]] const std::vector<TensorInfo>& tensors() const { return tensors_; }

    [[nodiscard]] const Metadata& metadata() const { return metadata_; }

    /// Of all tensors, in ascending order.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> all;
        all.reserve(tensors_.size());
        for (const TensorInfo& tensor : tensors_) all.push_back(tensor.name);
        return all;
    }

    [[nodiscard]] bool contains(std::string_view name) const { return find(name) != nullptr; }

    [[nodiscard]] const TensorInfo& info(std::string_view name) const {
        if (const TensorInfo* tensor = find(name)) return *tensor;
        detail::malformed(source_, "there is no tensor ", detail::in_quotes(name), ", expected one of ",
                          some_names());
    }

    /// Copies a tensor of any shape, row-major. float and double take F64, F32, F16 and BF16 (F64 to float
    /// rounds to nearest); every other T takes the dtype that is exactly T.
    template <Stored T>
    [[nodiscard]] std::vector<T> read(std::string_view name) const {
        const TensorInfo& tensor = info(name);
        std::vector<T> values(static_cast<std::size_t>(tensor.elements()));
        copy(tensor, values.data());
        return values;
    }

    /// The same, into a buffer of the tensor's size.
    template <Stored T>
    void read(std::string_view name, std::span<T> values) const {
        const TensorInfo& tensor = info(name);
        if (std::cmp_not_equal(values.size(), tensor.elements()))
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has ", tensor.elements(),
                              " elements, expected ", values.size(), " (the buffer's size)");
        copy(tensor, values.data());
    }

    /// A 2-D tensor (rows, cols) in place. Needs dtype T exactly, at an address aligned for T (a file written
    /// by SafetensorsWriter widest dtype first has all its tensors aligned); valid as long as the table's
    /// bytes.
    template <Stored T>
    [[nodiscard]] MatrixView<const T> matrix_view(std::string_view name) const {
        const TensorInfo& tensor = info(name);
        expect_matrix(tensor);
        expect_dtype<T>(tensor);
        if (!is_aligned<T>(tensor))
            detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " starts ",
                              address(tensor) % alignof(T), " bytes past a multiple of ", alignof(T),
                              ", expected an aligned one for a view without copying (read() copies)");
        return view<T>(tensor, tensor.bytes.data());
    }

    /// Calls f(MatrixView<const T>) with a 2-D tensor of dtype F64, F32, F16 or BF16, T being its own dtype,
    /// and returns what f returns, of one type for every T. In place where aligned, else a copy; the view is
    /// valid until f returns.
    template <class F>
    decltype(auto) visit_matrix(std::string_view name, F&& f) const {
        const TensorInfo& tensor = info(name);
        expect_matrix(tensor);
        return with_floating_type(tensor, [&]<class T>(std::type_identity<T>) -> decltype(auto) {
            if (is_aligned<T>(tensor))
                return std::invoke(std::forward<F>(f), view<T>(tensor, tensor.bytes.data()));
            std::vector<T> aligned(static_cast<std::size_t>(tensor.elements()));
            copy(tensor, aligned.data());
            return std::invoke(std::forward<F>(f), view<T>(tensor, aligned.data()));
        });
    }

  protected:
    TensorTable() = default;
    void assign(std::string source, std::vector<TensorInfo> tensors, Metadata metadata) {
        source_ = std::move(source);
        tensors_ = std::move(tensors);
        metadata_ = std::move(metadata);
        std::ranges::sort(tensors_, {}, &TensorInfo::name);
    }
    // Movable as a part of what owns the bytes only, so that no copy outlives them unseen.
    TensorTable(TensorTable&&) = default;
    TensorTable& operator=(TensorTable&&) = default;
    ~TensorTable() = default;

  private:
    const TensorInfo* find(std::string_view name) const {
        const auto at = std::ranges::lower_bound(
            tensors_, name, {}, [](const TensorInfo& t) -> std::string_view { return t.name; });
        return at != tensors_.end() && at->name == name ? &*at : nullptr;
    }

    std::string some_names() const {
        constexpr std::size_t most = 12;
        if (tensors_.empty()) return "none: the file has no tensors";
        std::string text;
        for (std::size_t i = 0; i < std::min(most, tensors_.size()); ++i)
            text += (i == 0 ? "" : ", ") + detail::in_quotes(tensors_[i].name);
        if (tensors_.size() > most) text += " and " + std::to_string(tensors_.size() - most) + " more";
        return text;
    }

    static std::uintptr_t address(const TensorInfo& tensor) {
        return reinterpret_cast<std::uintptr_t>(tensor.bytes.data());
    }

    template <class T>
    static bool is_aligned(const TensorInfo& tensor) {
        return tensor.bytes.empty() || address(tensor) % alignof(T) == 0;
    }

    template <class T, class Pointer>
    static MatrixView<const T> view(const TensorInfo& tensor, const Pointer* data) {
        return {tensor.bytes.empty() ? nullptr : reinterpret_cast<const T*>(data), tensor.shape[0],
                tensor.shape[1]};
    }

    template <class Found, class Expected>
    [[noreturn]] void refuse(const TensorInfo& tensor, std::string_view property, const Found& found,
                             const Expected& expected) const {
        detail::malformed(source_, "tensor ", detail::in_quotes(tensor.name), " has ", property, ' ', found,
                          ", expected ", expected);
    }

    void expect_matrix(const TensorInfo& tensor) const {
        if (tensor.shape.size() != 2) refuse(tensor, "rank", tensor.shape.size(), "2 (rows, cols)");
    }

    template <class T>
    void expect_dtype(const TensorInfo& tensor) const {
        if (tensor.dtype != dtype_of<T>())
            refuse(tensor, "dtype", name_of(tensor.dtype), name_of(dtype_of<T>()));
    }

    template <class F>
    decltype(auto) with_floating_type(const TensorInfo& tensor, F&& f) const {
        switch (tensor.dtype) {
            case DType::F64:
                return f(std::type_identity<double>{});
            case DType::F32:
                return f(std::type_identity<float>{});
            case DType::F16:
                return f(std::type_identity<float16>{});
            case DType::BF16:
                return f(std::type_identity<bfloat16>{});
            default:
                refuse(tensor, "dtype", name_of(tensor.dtype), "F64, F32, F16 or BF16");
        }
    }

    template <class T>
    void copy(const TensorInfo& tensor, T* values) const {
        if constexpr (Real<T>) {
            with_floating_type(tensor, [&]<class From>(std::type_identity<From>) {
                if constexpr (std::same_as<From, T>)
                    copy_bytes(tensor, values);
                else
                    convert<From>(tensor, values);
            });
        } else {
            expect_dtype<T>(tensor);
            copy_bytes(tensor, values);
        }
    }

    template <class T>
    static void copy_bytes(const TensorInfo& tensor, T* values) {
        if (!tensor.bytes.empty()) std::memcpy(values, tensor.bytes.data(), tensor.bytes.size());
    }

    template <class From, class T>
    static void convert(const TensorInfo& tensor, T* values) {
        const std::byte* data = tensor.bytes.data();
        for (Index i = 0; i < tensor.elements(); ++i) {
            From value;
            std::memcpy(&value, data + i * static_cast<Index>(sizeof value), sizeof value);
            values[i] = static_cast<T>(value);
        }
    }

    std::string source_;
    std::vector<TensorInfo> tensors_;
    Metadata metadata_;
};

}  // namespace residua::io
