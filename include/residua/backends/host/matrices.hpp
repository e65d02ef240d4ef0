#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "residua/backends/host/executor.hpp"
#include "residua/core/matrix.hpp"

namespace residua::detail {

/// Matrices in host memory and what moves and adds their elements: the part of the Backend concept that is
/// neither linear algebra nor quantization.
class HostMatrices {
  public:
    template <class U>
    using Matrix = residua::Matrix<U>;

    explicit HostMatrices(Executor executor = Executor()) : executor_(std::move(executor)) {}

    const Executor& executor() const { return executor_; }

    template <class U>
    Matrix<U> allocate(Index rows, Index cols) {
        return Matrix<U>(rows, cols);
    }

    /// Long rows are kept from starting at the same place of a page: the columns of a block would compete for
    /// a few lines of the cache.
    template <class U>
    Matrix<U> workspace(Index rows, Index cols) {
        constexpr Index line = 64 / static_cast<Index>(sizeof(U));
        constexpr Index page = 4096 / static_cast<Index>(sizeof(U));
        return Matrix<U>(rows, cols, cols >= page && cols % (page / 4) == 0 ? cols + line : cols);
    }

    template <class U>
    std::vector<std::remove_const_t<U>> read(MatrixView<U> a) {
        std::vector<std::remove_const_t<U>> values;
        values.reserve(static_cast<std::size_t>(a.rows * a.cols));
        for (Index i = 0; i < a.rows; ++i) values.insert(values.end(), a.row(i), a.row(i) + a.cols);
        return values;
    }

    template <class U>
    void write(const std::vector<U>& values, MatrixView<U> a) {
        for (Index i = 0; i < a.rows; ++i) std::copy_n(values.data() + i * a.cols, a.cols, a.row(i));
    }

    using Timestamp = std::chrono::steady_clock::time_point;
    Timestamp timestamp() { return std::chrono::steady_clock::now(); }
    double seconds(Timestamp from, Timestamp to) { return std::chrono::duration<double>(to - from).count(); }

    template <Real T>
    void add(MatrixView<const T> a, MatrixView<T> c) {
        rows(c.rows, [&](Index i) {
            std::transform(a.row(i), a.row(i) + a.cols, c.row(i), c.row(i), std::plus<T>());
        });
    }

    template <Real T>
    void subtract(MatrixView<const T> a, MatrixView<T> c) {
        rows(c.rows, [&](Index i) {
            std::transform(c.row(i), c.row(i) + c.cols, a.row(i), c.row(i), std::minus<T>());
        });
    }

    template <Real T>
    void mirror(MatrixView<T> a) {
        pairs_below_diagonal(a, [](T& lower, T& upper) { lower = upper; });
    }

    template <Real T>
    void mirror_lower(MatrixView<T> a) {
        pairs_below_diagonal(a, [](T& lower, T& upper) { upper = lower; });
    }

    template <Real T>
    void transpose_in_place(MatrixView<T> a) {
        pairs_below_diagonal(a, [](T& lower, T& upper) { std::swap(lower, upper); });
    }

    template <class T>
    std::vector<std::remove_const_t<T>> diagonal(MatrixView<T> a) {
        std::vector<std::remove_const_t<T>> d(static_cast<std::size_t>(a.rows));
        for (Index i = 0; i < a.rows; ++i) d[static_cast<std::size_t>(i)] = a(i, i);
        return d;
    }

    template <Real T>
    void set_diagonal(MatrixView<T> a, const std::vector<T>& d) {
        for (Index i = 0; i < a.rows; ++i) a(i, i) = d[static_cast<std::size_t>(i)];
    }

    template <Real T>
    void permute(MatrixView<const T> a, std::span<const Index> order, MatrixView<T> c) {
        rows(c.rows, [&](Index i) {
            const T* source = a.row(order[static_cast<std::size_t>(i)]);
            for (Index j = 0; j < c.cols; ++j) c(i, j) = source[order[static_cast<std::size_t>(j)]];
        });
    }

    template <Real T>
    void permute_transposed(MatrixView<const T> a, std::span<const Index> order, MatrixView<T> c) {
        transpose_tiles<T>(
            a.rows, a.cols,
            [&](Index j, Index first, Index count, T* values) {
                const T* source = a.row(order[static_cast<std::size_t>(j)]);
                for (Index i = 0; i < count; ++i)
                    values[i] = source[order[static_cast<std::size_t>(first + i)]];
            },
            [&](Index i, Index first, Index count, const T* values) {
                std::copy_n(values, count, c.row(i) + first);
            });
    }

    template <Real T>
    void clear_row(MatrixView<T> a, Index i) {
        std::fill_n(a.row(i), a.cols, T(0));
    }

    template <Real T>
    void clear_column(MatrixView<T> a, Index j) {
        for (Index i = 0; i < a.rows; ++i) a(i, j) = T(0);
    }

    template <Real T>
    double dot(MatrixView<const T> a, MatrixView<const T> c) {
        std::vector<double> sums(static_cast<std::size_t>(a.rows));
        rows(a.rows, [&](Index i) {
            double sum = 0;
            for (Index j = 0; j < a.cols; ++j) sum += double(a(i, j)) * double(c(i, j));
            sums[static_cast<std::size_t>(i)] = sum;
        });
        double total = 0;
        for (const double sum : sums) total += sum;
        return total;
    }

    template <Real T>
    bool is_finite(MatrixView<const T> a) {
        std::atomic<bool> finite = true;
        rows(a.rows, [&](Index i) {
            int all = 1;
            for (Index j = 0; j < a.cols; ++j) all &= detail::is_finite(a(i, j));
            if (!all) finite.store(false, std::memory_order_relaxed);
        });
        return finite;
    }

    template <Real T>
    void copy(MatrixView<const T> a, MatrixView<T> c) {
        rows(c.rows, [&](Index i) { std::copy_n(a.row(i), a.cols, c.row(i)); });
    }

    template <class U>
    void set_zero(MatrixView<U> c) {
        rows(c.rows, [&](Index i) { std::fill_n(c.row(i), c.cols, U(0)); });
    }

    template <class U>
    void transpose(MatrixView<const U> a, MatrixView<U> c) {
        transpose_tiles<U>(
            a.rows, a.cols,
            [&](Index i, Index first, Index count, U* values) {
                std::copy_n(a.row(i) + first, count, values);
            },
            [&](Index j, Index first, Index count, const U* values) {
                std::copy_n(values, count, c.row(j) + first);
            });
    }

  protected:
    /// task(0) ... task(count - 1), in parallel.
    template <class Task>
    void tasks(Index count, Task task) const {
        executor_(count, task);
    }

    /// body(i) for each row, in parallel runs of rows.
    template <class Body>
    void rows(Index count, Body body) const {
        constexpr Index run = 16;
        tasks((count + run - 1) / run, [&](Index t) {
            for (Index i = t * run; i < std::min(count, (t + 1) * run); ++i) body(i);
        });
    }

    /// Transposes a (rows, cols) matrix by tiles that stay in cache whatever the strides: read(i, first,
    /// count, values) gives elements (i, first ...), write(j, first, count, values) takes elements (first
    /// ..., j).
    template <class U, class Read, class Write>
    void transpose_tiles(Index row_count, Index col_count, Read read, Write write) const {
        constexpr Index tile = 64;
        tasks((row_count + tile - 1) / tile, [&](Index t) {
            alignas(64) U values[tile][tile];
            alignas(64) U column[tile];
            const Index i0 = t * tile;
            const Index height = std::min(tile, row_count - i0);
            for (Index j0 = 0; j0 < col_count; j0 += tile) {
                const Index width = std::min(tile, col_count - j0);
                for (Index i = 0; i < height; ++i) read(i0 + i, j0, width, values[i]);
                for (Index j = 0; j < width; ++j) {
                    for (Index i = 0; i < height; ++i) column[i] = values[i][j];
                    write(j0 + j, i0, height, column);
                }
            }
        });
    }

  private:
    /// body(a_ij, a_ji) for all i > j, by tiles that stay in cache.
    template <Real T, class Body>
    void pairs_below_diagonal(MatrixView<T> a, Body body) const {
        constexpr Index tile = 64;
        tasks((a.rows + tile - 1) / tile, [&](Index t) {
            const Index last = std::min(a.rows, (t + 1) * tile);
            for (Index j0 = 0; j0 < last; j0 += tile) {
                for (Index i = t * tile; i < last; ++i) {
                    for (Index j = j0; j < std::min(i, j0 + tile); ++j) body(a(i, j), a(j, i));
                }
            }
        });
    }

    Executor executor_;
};

}  // namespace residua::detail
