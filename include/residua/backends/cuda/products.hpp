#pragma once

#include "residua/backends/backend.hpp"
#include "residua/backends/cuda/context.hpp"
#include "residua/backends/cuda/elements.cuh"
#include "residua/backends/cuda/split.cuh"
#include "residua/core/report.hpp"

namespace residua::detail {

/// Products of matrices, by cuBLAS; of large float matrices on tensor cores as CudaOptions::precision says.
///
/// cuBLAS stores matrices by columns: a row-major matrix is the transpose of what it sees, so C = A X becomes
/// C' = X' A'.
class CudaProducts : public CudaContext {
  public:
    using CudaContext::CudaContext;

    template <Real T>
    void multiply(T alpha, Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        if (c.rows == 0 || c.cols == 0) return;
        if (x.rows == 0) {
            if (beta == T(0)) {
                set_zero(c);
            } else {
                cuda::visit(stream(), c.rows, c.cols, cuda::Add<T>{c, c, beta - T(1)});
            }
            return;
        }
        if constexpr (std::is_same_v<T, float>) {
            if (splits(c.rows, c.cols, x.rows)) return split_product(alpha, transpose, a, x, beta, c, false);
        }
        const cuda::BlasMode mode(blas(), rounds<T>() ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
        product<T, T>(alpha, transpose, a, x, beta, c);
    }

    /// Of device memory, which multiply() takes for itself.
    template <Real T>
    std::size_t multiply_bytes(MatrixView<const T> x, MatrixView<T> c) const {
        const bool split = std::is_same_v<T, float> && splits(c.rows, c.cols, x.rows);
        return split ? SplitPlan(c.rows, c.cols, x.rows).bytes() : 0;
    }

    /// The rows of a right factor X of products that become known one after the other: what Precision::split needs of
    /// them, made once. Empty where that is not worth its memory.
    struct RightFactor {
        Index cols = 0;
        Matrix<float16> high, low;  // (rows, cols), cols even
        Matrix<unsigned> partners;  // (1, rows): see cuda::SplitFactor
        Matrix<unsigned> of_all;    // (1, 1)
    };

    template <Real T>
    RightFactor right_factor(Index rows, Index cols) {
        RightFactor factor;
        if (right_factor_bytes<T>(rows, cols) == 0) return factor;
        factor.cols = cols;
        factor.high = allocate<float16>(rows, SplitPlan::even(cols));
        factor.low = allocate<float16>(rows, SplitPlan::even(cols));
        factor.partners = allocate<unsigned>(1, rows);
        factor.of_all = allocate<unsigned>(1, 1);
        return factor;
    }

    /// Of device memory, which right_factor() takes.
    template <Real T>
    std::size_t right_factor_bytes(Index rows, Index cols) const {
        constexpr Index least = Index(1) << 22;
        if (!std::is_same_v<T, float> || options().precision != Precision::split || rows * cols < least)
            return 0;
        return static_cast<std::size_t>(2 * rows * SplitPlan::even(cols)) * sizeof(float16) +
               static_cast<std::size_t>(rows + 1) * sizeof(unsigned);
    }

    /// Rows [first, first + x.rows) of X are x.
    template <Real T>
    void extend(RightFactor& factor, Index first, MatrixView<const T> x) {
        if constexpr (std::is_same_v<T, float>) {
            if (factor.cols == 0 || x.rows == 0) return;
            auto piece = allocate<cuda::SplitScalars>(1, 1);
            cuda::SplitScalars* const s = piece.view().data;
            cuda::check(cudaMemsetAsync(s, 0, sizeof(cuda::SplitScalars), stream()), "cudaMemsetAsync");
            cuda::find_largest(stream(), {.a = x}, {}, s);
            const MatrixView<float16> high = factor.high.view().row_range(first, x.rows);
            cuda::split(
                stream(),
                {x, high.data, factor.low.view().row(first), high.stride, x.rows, SplitPlan::even(x.cols)},
                {}, 1.0f, 0.0f, s);
            cuda::keep_largest(stream(), s, factor.partners.view().data, first, x.rows,
                               factor.of_all.view().data);
        }
    }

    /// multiply() by the rows x of X that are known, of which `factor` has been told.
    template <Real T>
    void multiply(T alpha, Transpose transpose, MatrixView<const T> a, const RightFactor& factor,
                  MatrixView<const T> x, T beta, MatrixView<T> c) {
        if constexpr (std::is_same_v<T, float>) {
            if (multiplies_kept(factor.cols, x, c))
                return split_product(alpha, transpose, a, factor, x, beta, c);
        }
        multiply(alpha, transpose, a, x, beta, c);
    }

    /// Of device memory, which this multiply() takes for itself; `kept`: whether a right factor is not empty.
    template <Real T>
    std::size_t multiply_bytes(bool kept, MatrixView<const T> x, MatrixView<T> c) const {
        if (std::is_same_v<T, float> && multiplies_kept(kept ? x.cols : 0, x, c))
            return static_cast<std::size_t>(kept_elements(x.rows, c.rows)) * sizeof(float16);
        return multiply_bytes(x, c);
    }

    /// Of the largest products in a solve of weights (rows, in_features).
    template <Real T>
    Arithmetic product_arithmetic(Index rows, Index in_features) const {
        if (rounds<T>()) return Arithmetic::TF32;
        const bool split = std::is_same_v<T, float> && splits(std::min(rows, in_features), rows, in_features);
        return split ? Arithmetic::Split : Arithmetic::Element;
    }

    /// C_B += A_B X_B for the blocks B of `width` rows of all three, A_B in the first `width` columns of A.
    template <Real T>
    void add_block_products(MatrixView<const T> a, Index width, MatrixView<const T> x, MatrixView<T> c) {
        const cuda::BlasMode mode(blas(), rounds<T>() ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
        const T one = T(1);
        const int rows = static_cast<int>(width);
        cuda::check(cublasGemmStridedBatchedEx(
                        blas(), CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(c.cols), rows, rows, &one, x.data,
                        cuda_type<T>(), static_cast<int>(x.stride), width * x.stride, a.data, cuda_type<T>(),
                        static_cast<int>(a.stride), width * a.stride, &one, c.data, cuda_type<T>(),
                        static_cast<int>(c.stride), width * c.stride, static_cast<int>(c.rows / width),
                        compute_type<T>(), CUBLAS_GEMM_DEFAULT),
                    "cublasGemmStridedBatchedEx");
    }

    template <class U>
    void set_zero(MatrixView<U> c) {
        if (c.rows == 0 || c.cols == 0) return;
        cuda::check(cudaMemset2DAsync(c.data, static_cast<std::size_t>(c.stride) * sizeof(U), 0,
                                      static_cast<std::size_t>(c.cols) * sizeof(U),
                                      static_cast<std::size_t>(c.rows), stream()),
                    "cudaMemset2DAsync");
    }

  protected:
    template <class E>
    static constexpr cudaDataType cuda_type() {
        if constexpr (std::is_same_v<E, float16>) return CUDA_R_16F;
        if constexpr (std::is_same_v<E, bfloat16>) return CUDA_R_16BF;
        if constexpr (std::is_same_v<E, double>) return CUDA_R_64F;
        return CUDA_R_32F;
    }

    template <Real T>
    static constexpr cublasComputeType_t compute_type() {
        return std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    }

    /// C = beta C + alpha op(A) X with elements E, summed in T.
    template <class E, Real T>
    void product(T alpha, Transpose transpose, MatrixView<const E> a, MatrixView<const E> x, T beta,
                 MatrixView<T> c) {
        gemm(&alpha, transpose, a, x, &beta, c);
    }

    /// The upper triangle of C += alpha A' X, X of the size of A, by blocks that reach beyond the diagonal.
    void add_upper_product(float alpha, MatrixView<const float> a, MatrixView<const float> x,
                           MatrixView<float> c) {
        split_product(alpha, Transpose::Yes, a, x, 1.0f, c, true);
    }

    /// Rows of the blocks that add_upper_product() works by.
    static constexpr Index upper_block = 512;

    /// Terms of a product that tensor cores sum. With more of them, their truncation shows beside fp32's rounding.
    static constexpr Index split_chunk = 1024;

    /// Whether a product of floats, op(A) (rows, depth) by X (depth, cols), is worth splitting its factors: where
    /// it is small, the launches that this takes cost more than they spare.
    bool splits(Index rows, Index cols, Index depth) const {
        constexpr Index least_depth = 512;
        constexpr double least_terms = 1e9;
        return options().precision == Precision::split && depth >= least_depth &&
               double(rows) * double(cols) * double(depth) >= least_terms;
    }

    /// How a product of op(A) (rows, depth) and X (depth, cols) is split: a piece of the depth at a time, so that
    /// the parts of both factors stay within `most_bytes` or are those of one chunk.
    struct SplitPlan {
        static constexpr Index most_bytes = Index(256) << 20;

        Index row_stride, col_stride, depth;

        SplitPlan(Index rows, Index cols, Index whole) : row_stride(even(rows)), col_stride(even(cols)) {
            const Index fit = most_bytes / (4 * (row_stride + col_stride)) / split_chunk * split_chunk;
            depth = even(std::min(whole, std::max(fit, split_chunk)));
        }

        static constexpr Index even(Index count) { return (count + 7) / 8 * 8; }
        Index left() const { return 2 * depth * row_stride; }  // elements of the parts of A
        Index right() const { return 2 * depth * col_stride; }
        Index elements() const { return header + left() + right(); }
        std::size_t bytes() const { return static_cast<std::size_t>(elements()) * sizeof(float16); }

        static constexpr Index header = 64;  // for the scalars
        static_assert(sizeof(cuda::SplitScalars) <= header * sizeof(float16));
    };

    /// Whether multiply() of a square matrix by X may write the result into X.
    bool multiplies_in_place(MatrixView<const float> x) const {
        return splits(x.rows, x.cols, x.rows) && SplitPlan(x.rows, x.cols, x.rows).depth >= x.rows;
    }

  private:
    template <Real T>
    bool rounds() const {
        return std::is_same_v<T, float> && options().precision == Precision::tf32;
    }

    template <class E, Real T>
    void gemm(const T* alpha, Transpose transpose, MatrixView<const E> a, MatrixView<const E> x,
              const T* beta, MatrixView<T> c) {
        cuda::check(cublasGemmEx(blas(), CUBLAS_OP_N, transpose == Transpose::No ? CUBLAS_OP_N : CUBLAS_OP_T,
                                 static_cast<int>(c.cols), static_cast<int>(c.rows), static_cast<int>(x.rows),
                                 alpha, x.data, cuda_type<E>(), static_cast<int>(x.stride), a.data,
                                 cuda_type<E>(), static_cast<int>(a.stride), beta, c.data, cuda_type<T>(),
                                 static_cast<int>(c.stride), compute_type<T>(), CUBLAS_GEMM_DEFAULT),
                    "cublasGemmEx");
    }

    /// Whether a product by kept rows is worth splitting its left factor.
    template <Real T>
    bool multiplies_kept(Index kept_cols, MatrixView<const T> x, MatrixView<T> c) const {
        constexpr double least_terms = 5e8;
        return kept_cols >= x.cols && x.rows > 0 &&
               double(c.rows) * double(c.cols) * double(x.rows) >= least_terms;
    }

    /// Of the parts of a left factor with so many rows, and of scalars.
    static Index kept_elements(Index depth, Index rows) {
        return SplitPlan::header + 2 * SplitPlan::even(depth) * SplitPlan::even(rows);
    }

    /// split_product() by rows that are split already.
    void split_product(float alpha, Transpose transpose, MatrixView<const float> a, const RightFactor& factor,
                       MatrixView<const float> x, float beta, MatrixView<float> c) {
        const bool transposed = transpose == Transpose::Yes;
        const Index depth = x.rows;
        const Index rows = SplitPlan::even(transposed ? depth : c.rows);
        const Index stride = SplitPlan::even(transposed ? c.rows : depth);
        auto memory = allocate<float16>(1, kept_elements(depth, c.rows));
        float16* const high = memory.view().data + SplitPlan::header;
        float16* const low = high + rows * stride;
        auto* const s = reinterpret_cast<cuda::SplitScalars*>(memory.view().data);
        cuda::check(cudaMemsetAsync(s, 0, sizeof(cuda::SplitScalars), stream()), "cudaMemsetAsync");
        cuda::check(cudaMemcpyAsync(&s->largest[1], factor.of_all.view().data, sizeof(unsigned),
                                    cudaMemcpyDeviceToDevice, stream()),
                    "cudaMemcpyAsync");
        cuda::find_largest(stream(), {.a = a}, {}, s);
        cuda::split(stream(), {a, high, low, stride, rows, stride, factor.partners.view().data, transposed},
                    {}, alpha, beta, s);
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH, CUBLAS_POINTER_MODE_DEVICE);
        const float* before = &s->beta;
        const auto add = [&](const float16* left, const Matrix<float16>& right, Index first, Index count) {
            const MatrixView<const float16> parts(transposed ? left + first * stride : left + first,
                                                  transposed ? count : c.rows, transposed ? c.rows : count,
                                                  stride);
            gemm(&s->alpha, transpose, parts, right.view().block(first, 0, count, c.cols), before, c);
            before = &s->one;
        };
        for (Index k = 0; k < depth; k += split_chunk)
            add(high, factor.high, k, std::min(split_chunk, depth - k));
        add(high, factor.low, 0, depth);
        add(low, factor.high, 0, depth);
    }

    /// C = beta C + alpha op(A) X with A = A_high + A_low and X likewise, on tensor cores:
    ///
    ///     op(A) X = A_high X_high + [A_high A_low] [X_low; X_high]
    ///
    /// The tensor cores truncate what they sum: no more than `split_chunk` terms of the first product are summed
    /// there, the rest in fp32. Those of the second are 2^-11 as large and need no care. `upper`: just the blocks
    /// that meet the upper triangle of C. C may be X where is_one_piece().
    void split_product(float alpha, Transpose transpose, MatrixView<const float> a, MatrixView<const float> x,
                       float beta, MatrixView<float> c, bool upper) {
        const SplitPlan plan(c.rows, c.cols, x.rows);
        auto memory = allocate<float16>(1, plan.elements());
        float16* const left = memory.view().data + SplitPlan::header;
        float16* const right = left + plan.left();
        auto* const s = reinterpret_cast<cuda::SplitScalars*>(memory.view().data);
        cuda::check(cudaMemsetAsync(s, 0, sizeof(cuda::SplitScalars), stream()), "cudaMemsetAsync");
        cuda::find_largest(stream(), {.a = a}, {.a = x}, s);

        const bool transposed = transpose == Transpose::Yes;
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH, CUBLAS_POINTER_MODE_DEVICE);
        const float* factor = &s->beta;
        for (Index from = 0; from < x.rows; from += plan.depth) {
            const Index depth = std::min(plan.depth, x.rows - from);
            const Index even = SplitPlan::even(depth);
            // the parts of A side by side, of A' one below the other; of X the lower one first
            const Index stride = transposed ? plan.row_stride : 2 * even;
            const Index apart = transposed ? even * stride : even;
            float16* const x_high = right + even * plan.col_stride;
            const auto piece = transposed ? a.row_range(from, depth) : a.block(0, from, a.rows, depth);
            cuda::split(stream(),
                        {piece, left, left + apart, stride, transposed ? even : a.rows,
                         transposed ? plan.row_stride : even},
                        {x.row_range(from, depth), x_high, right, plan.col_stride, even, plan.col_stride},
                        alpha, beta, s);

            const auto add = [&](Index first, Index count, const float16* x_parts) {
                const Index wide = upper ? upper_block : c.rows;
                for (Index i = 0; i < c.rows; i += wide) {
                    const Index rows = std::min(wide, c.rows - i);
                    const Index j = upper ? i : 0;
                    const MatrixView<const float16> parts(
                        transposed ? left + first * stride + i : left + i * stride + first,
                        transposed ? count : rows, transposed ? rows : count, stride);
                    gemm(&s->alpha, transpose, parts,
                         MatrixView<const float16>(x_parts + j, count, c.cols - j, plan.col_stride), factor,
                         c.block(i, j, rows, c.cols - j));
                }
                factor = &s->one;
            };
            for (Index k = 0; k < depth; k += split_chunk)
                add(k, std::min(split_chunk, depth - k), x_high + k * plan.col_stride);
            add(0, 2 * even, right);
        }
    }
};

}  // namespace residua::detail
