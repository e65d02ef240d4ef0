#pragma once

#include <algorithm>
#include <optional>

#include "residua/backends/cuda/products.hpp"
#include "residua/backends/cuda/transpose.cuh"
#include "residua/backends/cuda/triangular.cuh"

namespace residua::detail {

/// Triangular solves and factorizations: by products where Precision::split makes these fast, elsewhere by cuBLAS
/// and cuSOLVER, to which upper triangles are lower ones, see CudaProducts.
class CudaDense : public CudaProducts {
  public:
    using CudaProducts::CudaProducts;

    template <Real T>
    void solve_upper(MatrixView<const T> r, MatrixView<T> x) {
        solve(Transpose::No, r, x);
    }

    template <Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        solve(Transpose::Yes, r, x);
    }

    /// The lower triangle of X <- R^-1 X, X square. What is above it is unspecified afterwards. False where this
    /// would not be faster than solve_upper() by blocks of rows; X is then as it was.
    bool solve_upper_below(MatrixView<const float> r, MatrixView<float> x) {
        if (!solves_by_products(x.rows, x.cols)) return false;
        solve_by_products(Transpose::No, r, x, Part::LowerTriangle);
        return true;
    }

    /// Of device memory, which a solve with X takes for itself: the inverses of R's blocks, a block of X, and the
    /// largest of its products.
    template <Real T>
    std::size_t solve_upper_bytes(MatrixView<T> x) const {
        if (!std::is_same_v<T, float> || !solves_by_products(x.rows, x.cols)) return 0;
        const auto bytes = [&](Index rows, Index depth) {
            return splits(rows, x.cols, depth) ? SplitPlan(rows, x.cols, depth).bytes() : 0;
        };
        std::size_t largest = bytes(solved_rows, solved_rows);
        for (Index n = x.rows, rest = 0; n > solved_rows; n = rest) {
            rest = n - half_of(n);
            largest = std::max(largest, bytes(half_of(n), rest));
        }
        return static_cast<std::size_t>((x.rows + x.cols) * solved_rows) * sizeof(T) + largest;
    }

    /// With J the reversal of the order, A = R R' is J A J = L L', L = J R J: an ordinary factorization,
    /// which cuSOLVER does fastest in what it sees as the lower triangle. That is A's upper one, reflected.
    /// Waits for the outcome.
    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        return factor(a, a.rows, [&](const auto& leaf) { leaf(Index(0), a.rows); });
    }

    /// The same by halves, the leaves by cuSOLVER, the rest by products. Where that is not faster, nothing; A is
    /// then as it was.
    template <Real T>
    std::optional<bool> fast_cholesky_upper(MatrixView<T> a) {
        if constexpr (std::is_same_v<T, float>) {
            if (!factors_by_products(a)) return {};
            const Index n = a.rows;
            auto kept = allocate<float>(n, upper_block);
            const auto below = [&](bool restore) {  // products reach below the diagonal
                cuda::visit(stream(), n, upper_block,
                            cuda::BelowDiagonal<float>{a, kept.view(), upper_block, restore});
            };
            below(false);
            const bool done =
                factor(a, factored_rows, [&](const auto& leaf) { factor_halves(a, 0, n, leaf); });
            below(true);
            return done;
        }
        return {};
    }

    /// Of device memory, which cholesky_upper(A) and fast_cholesky_upper(A) take for themselves.
    template <Real T>
    std::size_t cholesky_upper_bytes(MatrixView<T> a) const {
        std::size_t bytes = potrf_workspace_bytes(a).first;
        if constexpr (std::is_same_v<T, float>) {
            if (factors_by_products(a)) {
                const Index half = (a.rows / factored_rows + 1) / 2 * factored_rows;
                const MatrixView<T> right(a.data, half, a.rows - half);
                const std::size_t products =
                    std::max(solve_upper_bytes(right), SplitPlan(half, half, half).bytes());
                const auto kept = static_cast<std::size_t>(a.rows * upper_block) * sizeof(T);
                const MatrixView<T> leaf = a.block(0, 0, factored_rows, factored_rows);
                bytes = std::max(bytes, potrf_workspace_bytes(leaf).first + kept + products);
            }
        }
        return bytes + static_cast<std::size_t>(a.rows / factored_rows + 2) * sizeof(int);
    }

  private:
    /// Rows of a Cholesky factorization that cuSOLVER does; with fewer, its leaves would take longer than products
    /// spare. A multiple of `upper_block`, below whose blocks fast_cholesky_upper() puts back what was there.
    static constexpr Index factored_rows = 4096;
    static_assert(factored_rows % upper_block == 0);

    bool factors_by_products(MatrixView<const float> a) const {
        return options().precision == Precision::split && a.rows >= 2 * factored_rows;
    }

    /// Reflects A, factors it by walk(leaf), with leaf(begin, end) for a block on the diagonal of at most `most`
    /// rows, and reflects it again. Whether all went well.
    template <Real T, class Walk>
    bool factor(MatrixView<T> a, Index most, Walk walk) {
        constexpr cudaDataType type = cuda_type<T>();
        const auto [device_bytes, host_bytes] = potrf_workspace_bytes(a.block(0, 0, most, most));
        auto workspace = allocate<Code>(1, static_cast<Index>(device_bytes));
        std::vector<Code> host_workspace(host_bytes);
        const Index leaves = (a.rows + most - 1) / most;
        auto outcome = allocate<int>(1, leaves + 1);  // whether the factor is unusable; cuSOLVER's infos
        set_zero(outcome.view());
        int* const unusable = outcome.view().data;
        int* info = unusable;

        cuda::reflect(stream(), a);
        walk([&](Index begin, Index end) {
            ++info;
            cuda::check(cusolverDnXpotrf(solver(), nullptr, CUBLAS_FILL_MODE_LOWER, end - begin, type,
                                         &a(begin, begin), a.stride, type, workspace.view().data,
                                         device_bytes, host_workspace.data(), host_bytes, info),
                        "cusolverDnXpotrf");
        });
        cuda::reflect(stream(), a);
        cuda::visit(stream(), 1, a.rows, cuda::CheckFactor<T>{a, unusable + 1, leaves, unusable});
        return read(outcome.view())[0] == 0;
    }

    /// A = U'U in place, the upper triangle of rows and columns [begin, end) of A, by halves.
    template <class Leaf>
    void factor_halves(MatrixView<float> a, Index begin, Index end, const Leaf& leaf) {
        const Index n = end - begin;
        if (n <= factored_rows) return leaf(begin, end);
        const Index middle = begin + (n + factored_rows - 1) / factored_rows / 2 * factored_rows;
        factor_halves(a, begin, middle, leaf);
        const MatrixView<float> right = a.block(begin, middle, middle - begin, end - middle);
        const MatrixView<const float> known = right;
        solve_upper_transposed<float>(a.block(begin, begin, middle - begin, middle - begin), right);
        add_upper_product(-1.0f, known, known, a.block(middle, middle, end - middle, end - middle));
        factor_halves(a, middle, end, leaf);
    }

    /// Of cuSOLVER: on the device, on the host.
    template <Real T>
    std::pair<std::size_t, std::size_t> potrf_workspace_bytes(MatrixView<T> a) const {
        std::pair<std::size_t, std::size_t> bytes;
        cuda::check(
            cusolverDnXpotrf_bufferSize(solver(), nullptr, CUBLAS_FILL_MODE_LOWER, a.rows, cuda_type<T>(),
                                        a.data, a.stride, cuda_type<T>(), &bytes.first, &bytes.second),
            "cusolverDnXpotrf_bufferSize");
        return bytes;
    }

    /// X <- op(R)^-1 X
    template <Real T>
    void solve(Transpose transpose, MatrixView<const T> r, MatrixView<T> x) {
        if (x.rows == 0 || x.cols == 0) return;
        if constexpr (std::is_same_v<T, float>) {
            if (solves_by_products(x.rows, x.cols)) return solve_by_products(transpose, r, x, Part::All);
        }
        solve_by_library(transpose, r, x);
    }

    /// Rows of the blocks whose inverses are made.
    static constexpr Index solved_rows = 4 * cuda::inverted_rows;

    bool solves_by_products(Index rows, Index cols) const {
        return options().precision == Precision::split && rows >= solved_rows && cols >= solved_rows;
    }

    /// Where a solve with n rows divides them: whole blocks, about half of them.
    static constexpr Index half_of(Index n) { return (n + solved_rows - 1) / solved_rows / 2 * solved_rows; }

    enum class Part { All, LowerTriangle };

    void solve_by_products(Transpose transpose, MatrixView<const float> r, MatrixView<float> x, Part part) {
        const auto inverses = invert_blocks(r);
        auto before = allocate<float>(solved_rows, x.cols);
        solve_halves(transpose, r, inverses.view(), x, part, before.view());
    }

    /// (n, solved_rows): the inverses of the blocks on the diagonal of R, one below the other. From those of the
    /// halves of each block, see cuda::invert_blocks_kernel, all blocks at once.
    Matrix<float> invert_blocks(MatrixView<const float> r) {
        const Index n = r.rows;
        auto inverses = allocate<float>(n, solved_rows);
        auto product =
            allocate<float>((n + solved_rows - 1) / solved_rows * solved_rows / 2, solved_rows / 2);
        const MatrixView<float> x = inverses.view();
        set_zero(x);
        cuda::invert_small_blocks(stream(), r, x);
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH);
        const auto join = [&](Index first, Index offset, Index half, Index count) {
            const Index from = first + offset;
            const Index middle = from + half;
            const Index width = std::min(half, n - middle);
            if (width <= 0 || count == 0) return;
            const MatrixView<const float> known = x;
            const MatrixView<float> y(product.view().data, half, width, solved_rows / 2);
            const Index step = solved_rows * x.stride;
            const Index y_step = solved_rows / 2 * y.stride;
            products(count, 1.0f, r.block(from, middle, half, width), solved_rows * (r.stride + 1),
                     known.block(middle, offset + half, width, width), step, y, y_step);
            products(count, -1.0f, known.block(from, offset, half, half), step, MatrixView<const float>(y),
                     y_step, x.block(from, offset + half, half, width), step);
        };
        const Index whole = n / solved_rows;
        for (Index half = cuda::inverted_rows; half < solved_rows; half *= 2) {
            for (Index offset = 0; offset < solved_rows; offset += 2 * half) {
                join(0, offset, half, whole);
                join(whole * solved_rows, offset, half, 1);  // what is left
            }
        }
        return inverses;
    }

    /// C_b = alpha A_b X_b for `count` b, so many elements apart.
    void products(Index count, float alpha, MatrixView<const float> a, Index a_step,
                  MatrixView<const float> x, Index x_step, MatrixView<float> c, Index c_step) {
        const float zero = 0;
        cuda::check(cublasSgemmStridedBatched(blas(), CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(c.cols),
                                              static_cast<int>(c.rows), static_cast<int>(x.rows), &alpha,
                                              x.data, static_cast<int>(x.stride), x_step, a.data,
                                              static_cast<int>(a.stride), a_step, &zero, c.data,
                                              static_cast<int>(c.stride), c_step, static_cast<int>(count)),
                    "cublasSgemmStridedBatched");
    }

    /// By halves: op(R) = [R_11 R_12; 0 R_22], or its transpose. `inverses` of R's blocks; `before` to keep a block
    /// of X. Part::LowerTriangle, of the first so many columns of X: all that R^-1 X needs for it.
    void solve_halves(Transpose transpose, MatrixView<const float> r, MatrixView<const float> inverses,
                      MatrixView<float> x, Part part, MatrixView<float> before) {
        const Index n = x.rows;
        if (n <= solved_rows) {
            MatrixView<const float> known = x;
            const MatrixView<const float> inverse = inverses.block(0, 0, n, n);
            if (!multiplies_in_place(x)) {
                const MatrixView<float> kept(before.data, n, x.cols);
                copy_rows(kept.data, kept.stride, x.data, x.stride, n, x.cols);
                known = kept;
            }
            return multiply(1.0f, transpose, inverse, known, 0.0f, x);
        }
        const Index middle = half_of(n);
        const Index rest = n - middle;
        const Index cols = part == Part::All ? x.cols : x.cols - rest;  // of the upper half
        const auto x_1 = x.block(0, 0, middle, cols);
        const auto x_2 = x.row_range(middle, rest);
        const auto coupling = r.block(0, middle, middle, rest);
        const auto solve_first = [&] {
            solve_halves(transpose, r.block(0, 0, middle, middle), inverses.row_range(0, middle), x_1, part,
                         before);
        };
        const auto solve_second = [&] {
            solve_halves(transpose, r.block(middle, middle, rest, rest), inverses.row_range(middle, rest),
                         x_2, part, before);
        };
        if (transpose == Transpose::No) {
            solve_second();
            multiply(-1.0f, transpose, coupling, MatrixView<const float>(x_2.block(0, 0, rest, cols)), 1.0f,
                     x_1);
            solve_first();
        } else {
            solve_first();
            multiply(-1.0f, transpose, coupling, MatrixView<const float>(x_1), 1.0f, x_2);
            solve_second();
        }
    }

    /// X' <- X' op(R)^-T: from the right.
    template <Real T>
    void solve_by_library(Transpose transpose, MatrixView<const T> r, MatrixView<T> x) {
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH);
        const cublasOperation_t operation = transpose == Transpose::No ? CUBLAS_OP_N : CUBLAS_OP_T;
        const T one = T(1);
        const int rows = static_cast<int>(x.cols);
        const int cols = static_cast<int>(x.rows);
        const int r_stride = static_cast<int>(r.stride);
        const int x_stride = static_cast<int>(x.stride);
        if constexpr (std::is_same_v<T, float>) {
            cuda::check(
                cublasStrsm(blas(), CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_LOWER, operation,
                            CUBLAS_DIAG_NON_UNIT, rows, cols, &one, r.data, r_stride, x.data, x_stride),
                "cublasStrsm");
        } else {
            cuda::check(
                cublasDtrsm(blas(), CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_LOWER, operation,
                            CUBLAS_DIAG_NON_UNIT, rows, cols, &one, r.data, r_stride, x.data, x_stride),
                "cublasDtrsm");
        }
    }
};

}  // namespace residua::detail
