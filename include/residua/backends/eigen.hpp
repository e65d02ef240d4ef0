#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include "residua/backends/host.hpp"

namespace residua {

/// The CPU backend: Eigen's matrix product, cut into tasks of fixed size so that results are the same bits
/// for any number of threads.
class EigenBackend : public HostBackend {
  public:
    using HostBackend::HostBackend;

    template <Real T>
    void multiply(T alpha, Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        const Index column_tiles = (c.cols + tile_columns - 1) / tile_columns;
        const Index row_tiles = (c.rows + tile_rows - 1) / tile_rows;
        tasks(column_tiles * row_tiles, [&](Index t) {
            const Index i = t / column_tiles * tile_rows;
            const Index j = t % column_tiles * tile_columns;
            const Index height = std::min(tile_rows, c.rows - i);
            const Index width = std::min(tile_columns, c.cols - j);
            const auto left =
                transpose == Transpose::No ? a.block(i, 0, height, a.cols) : a.block(0, i, a.rows, height);
            product(alpha, transpose, left, x.block(0, j, x.rows, width), beta, c.block(i, j, height, width));
        });
    }

    /// Memory that cholesky_upper(A) takes for itself.
    template <Real T>
    std::size_t cholesky_upper_bytes(MatrixView<T> a) const {
        return static_cast<std::size_t>(panel * a.rows) * sizeof(T);
    }

    /// Blocked from the last column to the first: R_JJ = chol(A_JJ), R_IJ = A_IJ R_JJ^-T, A_II -= R_IJ R_IJ'.
    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        Matrix<T> panel_transposed = workspace<T>(panel, a.rows);
        for (Index end = a.rows, begin = 0; end > 0; end = begin) {
            begin = (end - 1) / panel * panel;
            const Index width = end - begin;
            const MatrixView<T> diagonal = a.block(begin, begin, width, width);
            if (!cholesky_upper_small(diagonal)) return false;

            // R_IJ' = R_JJ^-1 A_IJ', kept transposed for the update
            const MatrixView<T> pt = panel_transposed.view().block(0, 0, width, begin);
            tasks((begin + panel - 1) / panel, [&](Index t) {
                const Index i = t * panel;
                const Index height = std::min(panel, begin - i);
                auto block = map(pt.block(0, i, width, height));
                block = map(a.block(i, begin, height, width)).transpose();
                solve_upper_small(MatrixView<const T>(diagonal), pt.block(0, i, width, height));
                map(a.block(i, begin, height, width)) = block.transpose();
            });
            update_upper(T(-1), MatrixView<const T>(pt), a.block(0, 0, begin, begin));
        }
        return true;
    }

    template <Real T>
    void solve_upper(MatrixView<const T> r, MatrixView<T> x) {
        solve_tiles(x, [&](MatrixView<T> tile) {
            for (Index end = r.rows, begin = 0; end > 0; end = begin) {
                begin = (end - 1) / solve_block * solve_block;
                const Index height = end - begin;
                const MatrixView<T> solved = tile.row_range(begin, height);
                solve_upper_small(r.block(begin, begin, height, height), solved);
                product(T(-1), Transpose::No, r.block(0, begin, begin, height), MatrixView<const T>(solved),
                        T(1), tile.row_range(0, begin));
            }
        });
    }

    template <Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        solve_tiles(x, [&](MatrixView<T> tile) {
            for (Index begin = 0; begin < r.rows; begin += solve_block) {
                const Index height = std::min(solve_block, r.rows - begin);
                const Index rest = begin + height;
                const MatrixView<T> solved = tile.row_range(begin, height);
                map(r.block(begin, begin, height, height))
                    .transpose()
                    .template triangularView<Eigen::Lower>()
                    .solveInPlace(lvalue(map(solved)));
                product(T(-1), Transpose::Yes, r.block(begin, rest, height, r.rows - rest),
                        MatrixView<const T>(solved), T(1), tile.row_range(rest, r.rows - rest));
            }
        });
    }

    template <Element In, Real T>
    void accumulate_gram(MatrixView<const In> x, std::span<const float> weights, MatrixView<T> h) {
        Matrix<T> scratch = workspace<T>(batch_tokens, x.cols);
        for_batches<T>(x.rows, weights, [&](const std::vector<Index>& tokens, const std::vector<T>& roots) {
            const MatrixView<const T> batch = gather_tokens(tokens, roots, x, {}, scratch);
            update_upper(T(1), batch, h);
        });
    }

    template <Element In, Real T>
    void accumulate_cross(MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                          std::span<const float> weights, MatrixView<T> d) {
        Matrix<T> inputs = workspace<T>(batch_tokens, x.cols);
        Matrix<T> deviations = workspace<T>(batch_tokens, y.cols);
        for_batches<T>(x.rows, weights, [&](const std::vector<Index>& tokens, const std::vector<T>& roots) {
            const MatrixView<const T> batch = gather_tokens(tokens, roots, x, {}, inputs);
            const MatrixView<const T> deviation = gather_tokens(tokens, roots, y_fp, y, deviations);
            multiply(T(1), Transpose::Yes, deviation, batch, T(1), d);
        });
    }

  private:
    template <Real T>
    using Dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    template <class T>
    using Map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Dense<std::remove_const_t<T>>,
                                              Dense<std::remove_const_t<T>>>,
                           Eigen::Unaligned, Eigen::OuterStride<>>;

    static constexpr Index tile_rows = 512;
    static constexpr Index tile_columns = 512;
    static constexpr Index upper_tile_rows = 256;
    static constexpr Index upper_tile_columns = 512;
    static constexpr Index panel = 256;
    static constexpr Index solve_block = 128;
    static constexpr Index batch_tokens = 512;

    template <class T>
    static Map<T> map(MatrixView<T> v) {
        return Map<T>(v.data, v.rows, v.cols, Eigen::OuterStride<>(v.stride));
    }

    template <class M>
    static M& lvalue(M&& m) {
        return static_cast<M&>(m);  // in C++23 `m` alone is an rvalue here
    }

    /// Keeps Eigen from starting OpenMP threads of its own inside a task.
    class OneThread {
#ifdef _OPENMP
      public:
        OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
        ~OneThread() { omp_set_num_threads(before_); }
        OneThread(const OneThread&) = delete;
        OneThread& operator=(const OneThread&) = delete;

      private:
        int before_;
#else
      public:
        OneThread() {}
#endif
    };

    /// One task's product.
    template <Real T>
    static void product(T alpha, Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                        MatrixView<T> c) {
        if (c.rows == 0 || c.cols == 0) return;
        const OneThread one_thread;
        auto target = map(c);
        if (beta == T(0)) target.setZero();
        if (beta != T(0) && beta != T(1)) target *= beta;
        if (transpose == Transpose::No) {
            target.noalias() += alpha * map(a) * map(x);
        } else {
            target.noalias() += alpha * map(a).transpose() * map(x);
        }
    }

    template <Real T>
    static void solve_upper_small(MatrixView<const T> r, MatrixView<T> x) {
        map(r).template triangularView<Eigen::Upper>().solveInPlace(lvalue(map(x)));
    }

    /// Reversing rows and columns turns A = R R' into the ordinary factorization by a lower triangle.
    template <Real T>
    static bool cholesky_upper_small(MatrixView<T> a) {
        const Dense<T> reversed = map(a).template selfadjointView<Eigen::Upper>();
        const Eigen::LLT<Dense<T>, Eigen::Lower> factor(reversed.reverse());
        if (factor.info() != Eigen::Success) return false;
        const Dense<T> lower = factor.matrixL();
        if (!detail::is_finite(static_cast<double>(lower.sum()))) return false;
        map(a).template triangularView<Eigen::Upper>() = lower.reverse();
        return true;
    }

    /// Upper triangle of C += alpha X' X, in tiles; the strict lower triangle stays as it is.
    template <Real T>
    void update_upper(T alpha, MatrixView<const T> x, MatrixView<T> c) const {
        std::vector<std::pair<Index, Index>> tiles;
        for (Index i = 0; i < c.rows; i += upper_tile_rows) {
            for (Index j = i; j < c.rows; j += upper_tile_columns) tiles.emplace_back(i, j);
        }
        tasks(static_cast<Index>(tiles.size()), [&](Index t) {
            auto [i, j] = tiles[static_cast<std::size_t>(t)];
            const Index height = std::min(upper_tile_rows, c.rows - i);
            Index width = std::min(upper_tile_columns, c.rows - j);
            const MatrixView<const T> left = x.block(0, i, x.rows, height);
            if (i == j) {
                const OneThread one_thread;
                map(c.block(i, i, height, height)).template triangularView<Eigen::Upper>() +=
                    alpha * map(left).transpose() * map(left);
                j += height;
                width -= height;
            }
            product(alpha, Transpose::Yes, left, x.block(0, j, x.rows, width), T(1),
                    c.block(i, j, height, width));
        });
    }

    template <Real T, class Body>
    void solve_tiles(MatrixView<T> x, Body body) const {
        tasks((x.cols + tile_columns - 1) / tile_columns, [&](Index t) {
            const Index j = t * tile_columns;
            body(x.block(0, j, x.rows, std::min(tile_columns, x.cols - j)));
        });
    }

    /// Calls body(tokens, square roots of their weights) for batches of the tokens of positive weight.
    template <Real T, class Body>
    static void for_batches(Index count, std::span<const float> weights, Body body) {
        std::vector<Index> tokens;
        std::vector<T> roots;
        for (Index t = 0; t < count; ++t) {
            const T weight = weights.empty() ? T(1) : static_cast<T>(weights[static_cast<std::size_t>(t)]);
            if (weight == T(0)) continue;
            tokens.push_back(t);
            roots.push_back(std::sqrt(weight));
            if (static_cast<Index>(tokens.size()) == batch_tokens) {
                body(tokens, roots);
                tokens.clear();
                roots.clear();
            }
        }
        if (!tokens.empty()) body(tokens, roots);
    }

    /// (batch, features): root * x_t, or root * (x_t - minus_t) where `minus` is given.
    template <Element In, Real T>
    MatrixView<const T> gather_tokens(const std::vector<Index>& tokens, const std::vector<T>& roots,
                                      MatrixView<const In> x, MatrixView<const In> minus,
                                      Matrix<T>& scratch) const {
        const Index count = static_cast<Index>(tokens.size());
        constexpr Index run = 8;
        tasks((count + run - 1) / run, [&](Index task) {
            for (Index i = task * run; i < std::min(count, (task + 1) * run); ++i) {
                const Index token = tokens[static_cast<std::size_t>(i)];
                const T root = roots[static_cast<std::size_t>(i)];
                const In* source = x.row(token);
                T* target = scratch.view().row(i);
                for (Index j = 0; j < x.cols; ++j) target[j] = T(source[j]);
                if (minus.data) {
                    const In* subtrahend = minus.row(token);
                    for (Index j = 0; j < x.cols; ++j) target[j] -= T(subtrahend[j]);
                }
                for (Index j = 0; j < x.cols; ++j) target[j] *= root;
            }
        });
        return scratch.view().row_range(0, count);
    }
};

}  // namespace residua
