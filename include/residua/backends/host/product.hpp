#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "residua/core/matrix.hpp"

// The front end of nvcc warns of what g++ and clang++ need to keep register tiles in registers.
#ifdef __CUDACC__
#define RESIDUA_UNROLL
#else
#define RESIDUA_UNROLL _Pragma("GCC unroll 16")
#endif

/// The matrix product C = beta C + alpha op(A) op(X) as tiles that are computed from packed factors, each of which is
/// packed once for all tiles of its row or column.
///
/// An element of C is the sum over blocks of `depth` terms, in order, each block the sum of its terms in order. No tile
/// boundary and no number of threads changes that, so that all of them give the same bits.
namespace residua::detail {

/// A factor as it lies in memory, or its transpose.
template <Real T>
struct Factor {
    MatrixView<const T> matrix;
    bool transposed = false;

    Index rows() const { return transposed ? matrix.cols : matrix.rows; }
    Index cols() const { return transposed ? matrix.rows : matrix.cols; }
    /// Rows [i, i + count), columns [j, j + width).
    Factor block(Index i, Index j, Index count, Index width) const {
        return {transposed ? matrix.block(j, i, width, count) : matrix.block(i, j, count, width), transposed};
    }
};

/// The register tile (height, width) of a product, and how factors are packed for it. The compiler's vectors are as
/// long as the machine's, so that the tile, two of them wide, stays in its registers.
template <Real T>
class RegisterTile {
#if defined(__AVX512F__)
    static constexpr Index bytes = 64, registers = 32;
#elif defined(__AVX__)
    static constexpr Index bytes = 32, registers = 16;
#elif defined(__aarch64__)
    static constexpr Index bytes = 16, registers = 32;
#else
    static constexpr Index bytes = 16, registers = 16;
#endif
    typedef T Vector __attribute__((vector_size(bytes)));
    typedef T Unaligned __attribute__((vector_size(bytes), aligned(alignof(T)), may_alias));

  public:
    static constexpr Index height = (registers - 4) / 2;
    static constexpr Index width = 2 * bytes / static_cast<Index>(sizeof(T));
    /// Terms of a block; `width` columns of one fit into a first-level cache.
    static constexpr Index depth = 256;

    static constexpr Index alignment = bytes / static_cast<Index>(sizeof(T));
    /// The next address for a whole vector.
    static T* aligned(T* p) {
        const auto address = reinterpret_cast<std::uintptr_t>(p);
        return p + (bytes - address % bytes) % bytes / sizeof(T);
    }

    static constexpr Index padded_height(Index rows) { return (rows + height - 1) / height * height; }
    static constexpr Index padded_width(Index cols) { return (cols + width - 1) / width * width; }

    /// A (rows, terms) as panels of `height` rows, each with the elements of a term side by side, zeros behind the last
    /// row.
    static void pack_left(const Factor<T>& a, T* packed) { pack<height>(a.matrix, a.transposed, packed); }
    /// X (terms, cols) as panels of `width` columns likewise.
    static void pack_right(const Factor<T>& x, T* packed) { pack<width>(x.matrix, !x.transposed, packed); }

    /// C = beta C + alpha A X for packed panels of A and X. C (rows, cols) is at most (height, width); of it the
    /// elements (i, j) with j - i >= `diagonal` are read and written.
    static void multiply(T alpha, const T* a, const T* x, Index terms, T beta, MatrixView<T> c,
                         Index diagonal) {
        for (Index i = 0; i < c.rows; ++i) {
            __builtin_prefetch(c.row(i), 1);
            __builtin_prefetch(c.row(i) + c.cols - 1, 1);
        }
        Vector sums[height][2];
        for (Index i = 0; i < height; ++i) sums[i][0] = sums[i][1] = Vector{};
        for (Index k = 0; k < terms; ++k, a += height, x += width) {
            const Vector left_half = *reinterpret_cast<const Unaligned*>(x);
            const Vector right_half = *reinterpret_cast<const Unaligned*>(x + width / 2);
            RESIDUA_UNROLL
            for (Index i = 0; i < height; ++i) {
                sums[i][0] += a[i] * left_half;
                sums[i][1] += a[i] * right_half;
            }
        }
        // A part of a tile is one of its own, so that all elements are rounded by the same instructions.
        alignas(bytes) T part[height * width];
        const bool is_whole = c.rows == height && c.cols == width && diagonal <= 1 - height;
        const MatrixView<T> tile = is_whole ? c : MatrixView<T>(part, height, width);
        const auto for_part = [&](auto body) {
            for (Index i = 0; i < c.rows; ++i) {
                for (Index j = std::max<Index>(0, i + diagonal); j < c.cols; ++j) body(c(i, j), tile(i, j));
            }
        };
        if (!is_whole) {
            std::fill_n(part, height * width, T(0));
            if (beta != T(0)) for_part([](T& of_c, T& of_tile) { of_tile = of_c; });
        }
        RESIDUA_UNROLL
        for (Index i = 0; i < height; ++i) {
            for (Index half = 0; half < 2; ++half) {
                auto* const target = reinterpret_cast<Unaligned*>(tile.row(i) + half * (width / 2));
                const Vector sum = alpha * sums[i][half];
                *target = beta == T(0) ? sum : beta == T(1) ? *target + sum : beta * *target + sum;
            }
        }
        if (!is_whole) for_part([](T& of_c, T& of_tile) { of_c = of_tile; });
    }

  private:
    /// Panels of `size` rows of a matrix; of its columns if `across`. Reads along the rows, over which pages and cache
    /// lines extend.
    template <Index size>
    static void pack(MatrixView<const T> m, bool across, T* packed) {
        const Index lanes = across ? m.cols : m.rows;
        const Index terms = across ? m.rows : m.cols;
        const Index whole = lanes / size * size;
        if (across) {
            for (Index k = 0; k < terms; ++k) {
                const T* const source = m.row(k);
                T* target = packed + k * size;
                for (Index i = 0; i < whole; i += size, target += size * terms)
                    std::copy_n(source + i, size, target);
                if (whole < lanes)
                    std::fill_n(std::copy_n(source + whole, lanes - whole, target), size - (lanes - whole),
                                T(0));
            }
            return;
        }
        for (Index i = 0; i < lanes; i += size, packed += size * terms) {
            for (Index l = 0; l < size; ++l) {
                const T* const source = i + l < lanes ? m.row(i + l) : nullptr;
                for (Index k = 0; k < terms; ++k) packed[k * size + l] = source ? source[k] : T(0);
            }
        }
    }
};

/// C = beta C + alpha op(A) op(X); of C the elements (i, j) with j - i >= `diagonal` are read and written.
/// tasks(count, task) runs task(0) ... task(count - 1), on about `threads` threads.
template <Real T, class Tasks>
class PackedProduct {
    using Tile = RegisterTile<T>;

  public:
    PackedProduct(const Tasks& tasks, Index threads) : tasks_(tasks), threads_(threads) {}

    void operator()(T alpha, const Factor<T>& a, const Factor<T>& x, T beta, MatrixView<T> c,
                    Index diagonal) const {
        if (c.rows == 0 || c.cols == 0) return;
        const Index terms = a.cols();
        const Index depth = terms_at_once(c.rows, terms);
        const Blocks blocks(c, threads_);
        Matrix<T> packed(1, Tile::padded_height(c.rows) * depth);
        for (Index k = 0; k < std::max<Index>(1, terms); k += depth) {
            const Index count = std::min(depth, terms - k);
            pack(a.block(0, k, c.rows, count), packed.data());
            tasks_(blocks.count(), [&](Index t) {
                multiply(alpha, packed.data(), x.block(k, 0, count, c.cols), k == 0 ? beta : T(1), c,
                         diagonal, blocks.at(t));
            });
        }
    }

    /// Memory that it takes for itself, but for what threads take while they work.
    static std::size_t bytes(Index rows, Index terms) {
        return static_cast<std::size_t>(Tile::padded_height(rows) * terms_at_once(rows, terms)) * sizeof(T);
    }

  private:
    static constexpr Index widest = 8;  ///< register tiles side by side in a block

    struct Block {
        Index row, column, height, width;
    };

    /// The blocks that a task takes each, whole register tiles high and wide: several for each thread.
    class Blocks {
      public:
        Blocks(MatrixView<T> c, Index threads) : rows_(c.rows), cols_(c.cols) {
            split_height(40);
            width_ = std::min(Tile::padded_width(cols_), widest * Tile::width);
            const Index wanted = threads == 1 ? 1 : 3 * threads;
            while (count() < wanted && width_ > 2 * Tile::width) width_ = Tile::padded_width(width_ / 2);
            for (Index tiles = 20; count() < wanted && tiles > 4; tiles /= 2) split_height(tiles);
        }

        Index count() const { return down() * across(); }
        Block at(Index t) const {
            const Index i = t % down() * height_;
            const Index j = t / down() * width_;
            return {i, j, std::min(height_, rows_ - i), std::min(width_, cols_ - j)};
        }

      private:
        /// Into equal parts of so many register tiles at most.
        void split_height(Index tiles) {
            const Index parts = (rows_ + tiles * Tile::height - 1) / (tiles * Tile::height);
            height_ = Tile::padded_height((rows_ + parts - 1) / parts);
        }
        Index down() const { return (rows_ + height_ - 1) / height_; }
        Index across() const { return (cols_ + width_ - 1) / width_; }

        Index rows_, cols_, height_ = 0, width_ = 0;
    };

    /// Terms that A is packed for at a time: whole blocks, a few MB.
    static Index terms_at_once(Index rows, Index terms) {
        constexpr Index elements = (Index(1) << 23) / static_cast<Index>(sizeof(T));
        const Index of_block = Tile::padded_height(std::max<Index>(1, rows)) * Tile::depth;
        const Index blocks = std::max<Index>(1, elements / of_block);
        return std::max<Index>(1, std::min(blocks * Tile::depth, terms));
    }

    /// Block of terms after block of terms, the panels of all rows one after the other in each.
    void pack(const Factor<T>& a, T* packed) const {
        constexpr Index panels = 8;
        const Index groups = (a.rows() + panels * Tile::height - 1) / (panels * Tile::height);
        const Index blocks = (a.cols() + Tile::depth - 1) / Tile::depth;
        tasks_(groups * blocks, [&](Index t) {
            const Index i = t / blocks * panels * Tile::height;
            const Index k = t % blocks * Tile::depth;
            const Index count = std::min(Tile::depth, a.cols() - k);
            const Index rows = std::min(panels * Tile::height, a.rows() - i);
            Tile::pack_left(a.block(i, k, rows, count),
                            packed + k * Tile::padded_height(a.rows()) + i * count);
        });
    }

    /// One block of C.
    void multiply(T alpha, const T* packed, const Factor<T>& x, T beta, MatrixView<T> c, Index diagonal,
                  Block block) const {
        const auto is_below = [&](Index i, Index j, Index width) { return j + width - 1 - i < diagonal; };
        if (is_below(block.row, block.column, block.width)) return;
        const Index terms = x.rows();
        const Index rows = Tile::padded_height(c.rows);
        const Index size = Tile::padded_width(block.width) * std::min(Tile::depth, terms);
        const auto memory =
            std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(size + Tile::alignment));
        T* const right = Tile::aligned(memory.get());
        for (Index k = 0; k < std::max<Index>(1, terms); k += Tile::depth) {
            const Index count = std::min(Tile::depth, terms - k);
            Tile::pack_right(x.block(k, block.column, count, block.width), right);
            for (Index j = block.column; j < block.column + block.width; j += Tile::width) {
                const Index width = std::min(Tile::width, block.column + block.width - j);
                const T* const panel = right + (j - block.column) * count;
                for (Index i = block.row; i < block.row + block.height; i += Tile::height) {
                    if (is_below(i, j, width)) break;
                    const Index height = std::min(Tile::height, block.row + block.height - i);
                    Tile::multiply(alpha, packed + k * rows + i * count, panel, count, k == 0 ? beta : T(1),
                                   c.block(i, j, height, width), diagonal + i - j);
                }
            }
        }
    }

    const Tasks& tasks_;
    Index threads_;
};

}  // namespace residua::detail

#undef RESIDUA_UNROLL
