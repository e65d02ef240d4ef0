#pragma once

#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "residua/core/error.hpp"
#include "residua/core/sizes.hpp"
#include "residua/core/view.hpp"

namespace residua {

/// Owning row-major matrix in host memory, aligned to a cache line. Movable, not copyable: copies of n x n
/// matrices should be seen where they happen.
template <class T>
class Matrix {
  public:
    Matrix() = default;

    /// Contents are unspecified. Rows are `stride` >= cols elements apart.
    Matrix(Index rows, Index cols, Index stride) : rows_(rows), cols_(cols), stride_(stride) {
        require(rows >= 0, "Matrix: rows is", rows, "at least 0");
        require(cols >= 0, "Matrix: cols is", cols, "at least 0");
        require(stride >= cols, "Matrix: stride is", stride,
                "at least the number of columns, " + std::to_string(cols));
        require(detail::product_fits(rows, stride, sizeof(T)), "Matrix: rows times stride is",
                std::to_string(rows) + " * " + std::to_string(stride), "a matrix of fewer than 2^63 bytes");
        if (rows > 0 && stride > 0) {
            const auto bytes = static_cast<std::size_t>(rows * stride) * sizeof(T);
            data_.reset(static_cast<T*>(::operator new(bytes, std::align_val_t(alignment))));
        }
    }

    Matrix(Matrix&& other) noexcept { *this = std::move(other); }
    Matrix& operator=(Matrix&& other) noexcept {
        data_ = std::move(other.data_);
        rows_ = std::exchange(other.rows_, 0);
        cols_ = std::exchange(other.cols_, 0);
        stride_ = std::exchange(other.stride_, 0);
        return *this;
    }

    /// Without gaps between rows.
    Matrix(Index rows, Index cols) : Matrix(rows, cols, cols) {}

    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    Index size() const { return rows_ * cols_; }
    Index stride() const { return stride_; }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator()(Index i, Index j) { return data_.get()[i * stride_ + j]; }
    const T& operator()(Index i, Index j) const { return data_.get()[i * stride_ + j]; }
    [[nodiscard]] MatrixView<T> view() { return {data_.get(), rows_, cols_, stride_}; }
    [[nodiscard]] MatrixView<const T> view() const { return {data_.get(), rows_, cols_, stride_}; }

  private:
    static constexpr std::size_t alignment = 64;
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t(alignment)); }
    };

    static_assert(std::is_trivially_copyable_v<T>);
    std::unique_ptr<T, Free> data_;
    Index rows_ = 0;
    Index cols_ = 0;
    Index stride_ = 0;
};

}  // namespace residua
