#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "residua/core/error.hpp"
#include "residua/core/sizes.hpp"
#include "residua/core/types.hpp"

namespace residua {

/// Non-owning row-major matrix: element (i, j) is data[i * stride + j], stride >= cols.
///
/// Whether `data` points to host or device memory is for the backend to say that reads it.
template <class T>
struct MatrixView {
    T* data = nullptr;
    Index rows = 0;
    Index cols = 0;
    Index stride = 0;

    MatrixView() = default;
    RESIDUA_HOST_DEVICE constexpr MatrixView(T* data_, Index rows_, Index cols_)
        : data(data_), rows(rows_), cols(cols_), stride(cols_) {}
    RESIDUA_HOST_DEVICE constexpr MatrixView(T* data_, Index rows_, Index cols_, Index stride_)
        : data(data_), rows(rows_), cols(cols_), stride(stride_) {}

    /// A view of mutable elements is a view of constant ones.
    template <class U>
    requires(!std::is_same_v<U, T> && std::is_same_v<const U, T>) RESIDUA_HOST_DEVICE
        constexpr MatrixView(MatrixView<U> v)
        : data(v.data), rows(v.rows), cols(v.cols), stride(v.stride) {}

    RESIDUA_HOST_DEVICE constexpr T& operator()(Index i, Index j) const { return data[i * stride + j]; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr T* row(Index i) const { return data + i * stride; }

    /// Rows [i, i + count), columns [j, j + width).
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr MatrixView block(Index i, Index j, Index count,
                                                                 Index width) const {
        return {data + i * stride + j, count, width, stride};
    }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr MatrixView row_range(Index i, Index count) const {
        return block(i, 0, count, cols);
    }
};

/// The same elements, not to be changed.
template <class T>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr MatrixView<const T> read_only(MatrixView<T> view) {
    return view;
}

namespace detail {

/// Throws std::invalid_argument unless `view`, called `what` in the message, is a matrix of `cols` columns,
/// whose number is what `meaning` names.
template <class T>
void require_matrix(const std::string& what, MatrixView<T> view, Index cols,
                    const char* meaning = "in_features") {
    require(view.rows >= 0, what + ".rows is", view.rows, "at least 0");
    require(view.cols == cols, what + ".cols is", view.cols, std::to_string(cols) + " (" + meaning + ")");
    require(view.stride >= view.cols, what + ".stride is", view.stride,
            "at least its columns, " + std::to_string(view.cols));
    require(product_fits(view.rows, view.stride, sizeof(T)), what + ".rows times stride is",
            std::to_string(view.rows) + " * " + std::to_string(view.stride),
            "a matrix of fewer than 2^63 bytes");
    require(reinterpret_cast<std::uintptr_t>(view.data) % alignof(T) == 0, what + ".data is", "not aligned",
            "an address that is a multiple of " + std::to_string(alignof(T)));
    require(view.rows == 0 || view.data, what + ".data is", "null", "the elements of a matrix");
}

}  // namespace detail

}  // namespace residua
