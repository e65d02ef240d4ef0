#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include "residua/backends/host.hpp"
#include "residua/backends/host/bf16_product.hpp"
#include "residua/backends/host/lanes.hpp"
#include "residua/backends/host/product.hpp"

namespace residua {

/// The CPU backend. Factorizations and triangular solves go by halves down to blocks on the diagonal, so that all but
/// these is matrix products (host/product.hpp, or a BLAS where Eigen uses one). Every element is computed in an order that
/// depends on sizes alone: results are the same bits for any number of threads.
class EigenBackend : public HostBackend {
  public:
    using HostBackend::HostBackend;

    template <Real T>
    void multiply(T alpha, Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        product(alpha, Factor<T>{a, transpose == Transpose::Yes}, Factor<T>{x}, beta, c, everything(c));
    }

    /// Memory that operations take for themselves.
    template <Real T>
    std::size_t multiply_bytes(MatrixView<const T> x, MatrixView<T> c) const {
        return product_bytes<T>(c.rows, x.rows);
    }
    template <Real T>
    std::size_t solve_upper_bytes(MatrixView<T> x) const {
        const Index middle = first_half(0, x.rows);
        return std::max(product_bytes<T>(middle, x.rows - middle), product_bytes<T>(x.rows - middle, middle));
    }
    template <Real T>
    std::size_t cholesky_upper_bytes(MatrixView<T> a) const {
        return factor_columns_bytes<T>(0, a.rows);
    }

    /// By halves of columns from the last to the first: R_J of the right half, A_I -= R_IJ R_JJ' for the left one.
    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        return factor_columns(a, 0, a.rows);
    }

    template <Real T>
    void solve_upper(MatrixView<const T> r, MatrixView<T> x) {
        TriangularSolve<T>(*this, r, x).from_below(0, r.rows);
    }

    template <Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        TriangularSolve<T>(*this, r, x).from_above(0, r.rows);
    }

    template <Element In, Real T>
    void accumulate_gram(MatrixView<const In> x, std::span<const float> weights, MatrixView<T> h) {
        accumulate(MatrixView<const In>(), MatrixView<const In>(), x, weights, h);
    }

    template <Element In, Real T>
    void accumulate_cross(MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                          std::span<const float> weights, MatrixView<T> d) {
        accumulate(y, y_fp, x, weights, d);
    }

  private:
    template <Real T>
    using Dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    template <class T>
    using Map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Dense<std::remove_const_t<T>>,
                                              Dense<std::remove_const_t<T>>>,
                           Eigen::Unaligned, Eigen::OuterStride<>>;

    template <Real T>
    using Factor = detail::Factor<T>;

    static constexpr Index diagonal_block = 128;
    static constexpr Index batch_tokens = 512;
    static constexpr Index bf16_batch_tokens = 2048;
#ifdef EIGEN_USE_BLAS
    static constexpr bool uses_blas = true;
#else
    static constexpr bool uses_blas = false;
#endif

    /// The diagonal that all of C is above of.
    template <Real T>
    static Index everything(MatrixView<T> c) {
        return 1 - c.rows;
    }

    template <class T>
    static Map<T> map(MatrixView<T> v) {
        return Map<T>(v.data, v.rows, v.cols, Eigen::OuterStride<>(v.stride));
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

    /// C = beta C + alpha A X, of C the elements (i, j) with j - i >= diagonal.
    template <Real T>
    void product(T alpha, const Factor<T>& a, const Factor<T>& x, T beta, MatrixView<T> c,
                 Index diagonal) const {
        const auto run = [this](Index count, const auto& task) { this->tasks(count, task); };
        if constexpr (uses_blas) {
            product_by_tiles(alpha, a, x, beta, c, diagonal);
        } else {
            detail::PackedProduct<T, decltype(run)>(run, executor().threads())(alpha, a, x, beta, c,
                                                                               diagonal);
        }
    }

    template <Real T>
    static std::size_t product_bytes(Index rows, Index terms) {
        struct Nothing {};
        return uses_blas ? 0 : detail::PackedProduct<T, Nothing>::bytes(rows, terms);
    }

    /// task(i, j, height, width) for the tiles of C that have elements (i, j) with j - i >= diagonal.
    template <class T, class Task>
    void for_tiles(MatrixView<T> c, Index diagonal, Task task) const {
        constexpr Index tile = 512;
        const Index across = (c.cols + tile - 1) / tile;
        tasks((c.rows + tile - 1) / tile * across, [&](Index t) {
            const Index i = t / across * tile;
            const Index j = t % across * tile;
            const Index width = std::min(tile, c.cols - j);
            if (j + width - 1 - i < diagonal) return;
            const OneThread one_thread;
            task(i, j, std::min(tile, c.rows - i), width);
        });
    }

    /// The same by a BLAS, one call for each tile.
    template <Real T>
    void product_by_tiles(T alpha, const Factor<T>& a, const Factor<T>& x, T beta, MatrixView<T> c,
                          Index diagonal) const {
        for_tiles(c, diagonal, [&](Index i, Index j, Index height, Index width) {
            const Index first = diagonal + i - j;  // diagonal of the tile
            const Factor<T> left = a.block(i, 0, height, a.cols());
            const Factor<T> right = x.block(0, j, x.rows(), width);
            Dense<T> crossed(first > 1 - height ? height : 0, width);
            auto target = first > 1 - height
                              ? map(MatrixView<T>(crossed.data(), crossed.rows(), crossed.cols()))
                              : map(c.block(i, j, height, width));
            if (beta == T(0) || crossed.rows() > 0) target.setZero();
            if (beta != T(0) && beta != T(1)) target *= beta;
            const auto add = [&](const auto& l, const auto& r) { target.noalias() += alpha * l * r; };
            const auto by_right = [&](const auto& l) {
                x.transposed ? add(l, map(right.matrix).transpose()) : add(l, map(right.matrix));
            };
            a.transposed ? by_right(map(left.matrix).transpose()) : by_right(map(left.matrix));
            for (Index k = 0; k < crossed.rows(); ++k) {
                for (Index l = std::max<Index>(0, k + first); l < width; ++l)
                    c(i + k, j + l) = crossed(k, l) + (beta == T(0) ? T(0) : beta * c(i + k, j + l));
            }
        });
    }

    /// Between two halves of [begin, end), a whole number of blocks behind `begin`.
    static Index first_half(Index begin, Index end) {
        const Index blocks = (end - begin + diagonal_block - 1) / diagonal_block;
        return begin + blocks / 2 * diagonal_block;
    }

    /// Columns [begin, end) of R, where all that later columns take from them is taken.
    template <Real T>
    bool factor_columns(MatrixView<T> a, Index begin, Index end) const {
        const Index width = end - begin;
        if (width <= diagonal_block) {
            const MatrixView<T> block = a.block(begin, begin, width, width);
            if (!cholesky_upper_small(block)) return false;
            if (begin == 0) return true;
            // R_IJ = A_IJ R_JJ^-T
            Matrix<T> inverse(width, width);
            invert_upper(MatrixView<const T>(block), inverse.view());
            Matrix<T> above(begin, width);
            rows(begin, [&](Index i) { std::copy_n(a.row(i) + begin, width, above.view().row(i)); });
            const MatrixView<T> target = a.block(0, begin, begin, width);
            product(T(1), Factor<T>{above.view()}, Factor<T>{inverse.view(), true}, T(0), target,
                    everything(target));
            return true;
        }
        const Index middle = first_half(begin, end);
        if (!factor_columns(a, middle, end)) return false;
        const MatrixView<const T> solved = a.block(0, middle, middle, end - middle);
        product(T(-1), Factor<T>{solved}, Factor<T>{solved.row_range(begin, middle - begin), true}, T(1),
                a.block(0, begin, middle, middle - begin), -begin);
        return factor_columns(a, begin, middle);
    }

    template <Real T>
    static std::size_t factor_columns_bytes(Index begin, Index end) {
        const Index width = end - begin;
        if (width <= diagonal_block) {
            if (begin == 0) return 0;
            return static_cast<std::size_t>(width * (width + begin)) * sizeof(T) +
                   product_bytes<T>(begin, width);
        }
        const Index middle = first_half(begin, end);
        return std::max({factor_columns_bytes<T>(begin, middle), factor_columns_bytes<T>(middle, end),
                         product_bytes<T>(middle, end - middle)});
    }

    /// X <- R^-1 X or R^-T X by halves; within blocks on the diagonal row by row, for columns of X side by side.
    template <Real T>
    class TriangularSolve {
      public:
        TriangularSolve(const EigenBackend& backend, MatrixView<const T> r, MatrixView<T> x)
            : backend_(backend), r_(r), x_(x) {}

        /// Rows [begin, end) of X <- R^-1 X.
        void from_below(Index begin, Index end) const {
            const Index size = end - begin;
            if (size <= diagonal_block) {
                const MatrixView<const T> r = r_.block(begin, begin, size, size);
                return solve_block(begin, size, [&](T* strip) {
                    for (Index i = size; i-- > 0;)
                        eliminate(r.row(i) + i + 1, strip + (i + 1) * L, size - 1 - i, r(i, i),
                                  strip + i * L);
                });
            }
            const Index middle = first_half(begin, end);
            from_below(middle, end);
            subtract({r_.block(begin, middle, middle - begin, end - middle)}, middle, begin, middle - begin);
            from_below(begin, middle);
        }

        /// Rows [begin, end) of X <- R^-T X.
        void from_above(Index begin, Index end) const {
            const Index size = end - begin;
            if (size <= diagonal_block) {
                const MatrixView<const T> r = r_.block(begin, begin, size, size);
                std::vector<T> transposed(static_cast<std::size_t>(size * size));
                for (Index i = 0; i < size; ++i)
                    for (Index k = 0; k < i; ++k)
                        transposed[static_cast<std::size_t>(i * size + k)] = r(k, i);
                return solve_block(begin, size, [&](T* strip) {
                    for (Index i = 0; i < size; ++i)
                        eliminate(transposed.data() + i * size, strip, i, r(i, i), strip + i * L);
                });
            }
            const Index middle = first_half(begin, end);
            from_above(begin, middle);
            subtract({r_.block(begin, middle, middle - begin, end - middle), true}, begin, middle,
                     end - middle);
            from_above(middle, end);
        }

      private:
        static constexpr Index L = detail::lanes::width<T>;

        /// x_i <- (x_i - sum_k r_k x_k) / r_ii
        static void eliminate(const T* r, const T* x, Index count, T r_ii, T* x_i) {
            alignas(64) T sum[L];
            for (Index l = 0; l < L; ++l) sum[l] = T(0);
            detail::lanes::accumulate<L>(r, x, count, sum);
            const T inverse = T(1) / r_ii;
            for (Index l = 0; l < L; ++l) x_i[l] = (x_i[l] - sum[l]) * inverse;
        }

        void subtract(const Factor<T>& factor, Index from, Index to, Index height) const {
            const MatrixView<T> target = x_.row_range(to, height);
            backend_.product(T(-1), factor, Factor<T>{x_.row_range(from, factor.cols())}, T(1), target,
                             everything(target));
        }

        /// solve(strip) for strips (size, L) of the rows from `begin` on.
        template <class Solve>
        void solve_block(Index begin, Index size, Solve solve) const {
            backend_.tasks((x_.cols + L - 1) / L, [&](Index t) {
                alignas(64) T strip[diagonal_block * L];
                const Index active = std::min(L, x_.cols - t * L);
                for (Index i = 0; i < size; ++i)
                    detail::lanes::load<L>(x_.row(begin + i) + t * L, active, strip + i * L);
                solve(strip);
                for (Index i = 0; i < size; ++i)
                    std::copy_n(strip + i * L, active, x_.row(begin + i) + t * L);
            });
        }

        const EigenBackend& backend_;
        MatrixView<const T> r_;
        MatrixView<T> x_;
    };

    /// A small R^-1, zeros below the diagonal, row by row from the last one.
    template <Real T>
    static void invert_upper(MatrixView<const T> r, MatrixView<T> inverse) {
        for (Index i = r.rows; i-- > 0;) {
            T* const row = inverse.row(i);
            std::fill_n(row, r.cols, T(0));
            for (Index k = i + 1; k < r.cols; ++k) {
                const T factor = -r(i, k);
                const T* const other = inverse.row(k);
                for (Index j = k; j < r.cols; ++j) row[j] += factor * other[j];
            }
            const T scale = T(1) / r(i, i);
            for (Index j = i + 1; j < r.cols; ++j) row[j] *= scale;
            row[i] = scale;
        }
    }

    /// Reversing rows and columns turns A = R R' into the ordinary factorization by a lower triangle.
    template <Real T>
    static bool cholesky_upper_small(MatrixView<T> a) {
        using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;  // Eigen factors these fastest
        const OneThread one_thread;
        const Columns reversed = Columns(map(a).template triangularView<Eigen::Upper>()).reverse();
        const Eigen::LLT<Columns, Eigen::Lower> factor(reversed);
        if (factor.info() != Eigen::Success) return false;
        const Columns lower = factor.matrixL();
        if (!detail::is_finite(static_cast<double>(lower.sum()))) return false;
        map(a).template triangularView<Eigen::Upper>() = lower.reverse();
        return true;
    }

    /// H += sum_t w_t x_t x_t', its upper triangle; with y and y_fp H += sum_t w_t (y_fp_t - y_t) x_t'.
    template <Element In, Real T>
    void accumulate(MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                    std::span<const float> weights, MatrixView<T> h) {
        const Index diagonal = y.data ? everything(h) : 0;
#ifdef RESIDUA_ONEDNN
        if constexpr (std::is_same_v<In, bfloat16> && std::is_same_v<T, float>) {
            if (detail::has_fast_bf16_products())
                return add_batches<bfloat16>(
                    bf16_batch_tokens, y, y_fp, x, weights,
                    [&](auto left, auto right) { add_bf16_product(left, right, h, diagonal); });
        }
#endif
        add_batches<T>(batch_tokens, y, y_fp, x, weights, [&](auto left, auto right) {
            product(T(1), Factor<T>{left, true}, Factor<T>{right}, T(1), h, diagonal);
        });
    }

    /// add(left, right) for batches of tokens, scaled by the roots of their weights and rounded to U: right of x, left of
    /// y_fp - y or, where there is no y, of x too.
    template <class U, Element In, class Add>
    void add_batches(Index size, MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                     std::span<const float> weights, Add add) {
        using Sum = std::conditional_t<std::is_same_v<U, double>, double, float>;
        const Index most = std::min(size, x.rows);
        Matrix<U> inputs = workspace<U>(most, x.cols);
        Matrix<U> deviations = workspace<U>(y.data ? most : 0, y.cols);
        for_batches<Sum>(x.rows, size, weights,
                         [&](const std::vector<Index>& tokens, const std::vector<Sum>& roots) {
                             const MatrixView<const U> right = gather_tokens(tokens, roots, x, {}, inputs);
                             add(y.data ? gather_tokens(tokens, roots, y_fp, y, deviations) : right, right);
                         });
    }

#ifdef RESIDUA_ONEDNN
    /// H += A' X, of H the elements (i, j) with j - i >= diagonal.
    void add_bf16_product(MatrixView<const bfloat16> a, MatrixView<const bfloat16> x, MatrixView<float> h,
                          Index diagonal) const {
        for_tiles(h, diagonal, [&](Index i, Index j, Index height, Index width) {
            Matrix<float> sums(height, width);
            detail::multiply_bf16(a.block(0, i, a.rows, height), x.block(0, j, x.rows, width), sums.view());
            for (Index k = 0; k < height; ++k) {
                for (Index l = std::max<Index>(0, k + diagonal + i - j); l < width; ++l)
                    h(i + k, j + l) += sums(k, l);
            }
        });
    }
#endif

    /// Calls body(tokens, square roots of their weights) for batches of `size` tokens of positive weight.
    template <Real T, class Body>
    static void for_batches(Index count, Index size, std::span<const float> weights, Body body) {
        std::vector<Index> tokens;
        std::vector<T> roots;
        for (Index t = 0; t < count; ++t) {
            const T weight = weights.empty() ? T(1) : static_cast<T>(weights[static_cast<std::size_t>(t)]);
            if (weight == T(0)) continue;
            tokens.push_back(t);
            roots.push_back(std::sqrt(weight));
            if (static_cast<Index>(tokens.size()) == size) {
                body(tokens, roots);
                tokens.clear();
                roots.clear();
            }
        }
        if (!tokens.empty()) body(tokens, roots);
    }

    /// (batch, features): root * x_t, or root * (x_t - minus_t) where `minus` is given, computed in T and rounded to U.
    template <Element In, Real T, class U>
    MatrixView<const U> gather_tokens(const std::vector<Index>& tokens, const std::vector<T>& roots,
                                      MatrixView<const In> x, MatrixView<const In> minus,
                                      Matrix<U>& batch) const {
        const Index count = static_cast<Index>(tokens.size());
        constexpr Index run = 8;
        tasks((count + run - 1) / run, [&](Index task) {
            for (Index i = task * run; i < std::min(count, (task + 1) * run); ++i) {
                const Index token = tokens[static_cast<std::size_t>(i)];
                const T root = roots[static_cast<std::size_t>(i)];
                const In* source = x.row(token);
                U* target = batch.view().row(i);
                if (minus.data) {
                    const In* subtrahend = minus.row(token);
                    for (Index j = 0; j < x.cols; ++j)
                        target[j] = U((T(source[j]) - T(subtrahend[j])) * root);
                } else {
                    for (Index j = 0; j < x.cols; ++j) target[j] = U(T(source[j]) * root);
                }
            }
        });
        return batch.view().row_range(0, count);
    }
};

}  // namespace residua
