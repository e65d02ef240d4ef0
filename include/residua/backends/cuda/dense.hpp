#pragma once

#include "residua/backends/backend.hpp"
#include "residua/backends/cuda/context.hpp"
#include "residua/backends/cuda/elements.cuh"
#include "residua/backends/cuda/transpose.cuh"

namespace residua::detail {

/// Dense linear algebra by cuBLAS and cuSOLVER.
///
/// These store matrices by columns: a row-major matrix is the transpose of what they see, so C = A X becomes
/// C' = X' A', and upper triangles are lower ones.
class CudaDense : public CudaContext {
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
        const bool tf32 = std::is_same_v<T, float> && options().precision == Precision::tf32;
        const cuda::BlasMode mode(blas(), tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
        product<T, T>(alpha, transpose, a, x, beta, c);
    }

    /// C_B += A_B X_B for the blocks B of `width` rows of all three, A_B in the first `width` columns of A.
    template <Real T>
    void add_block_products(MatrixView<const T> a, Index width, MatrixView<const T> x, MatrixView<T> c) {
        const bool tf32 = std::is_same_v<T, float> && options().precision == Precision::tf32;
        const cuda::BlasMode mode(blas(), tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
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

    template <Real T>
    void solve_upper(MatrixView<const T> r, MatrixView<T> x) {
        solve(CUBLAS_OP_N, r, x);
    }

    template <Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        solve(CUBLAS_OP_T, r, x);
    }

    /// With J the reversal of the order, A = R R' is J A J = L L', L = J R J: an ordinary factorization,
    /// which cuSOLVER does fastest in what it sees as the lower triangle. That is A's upper one, reflected.
    /// Waits for the outcome.
    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        constexpr cudaDataType type = cuda_type<T>();
        const auto n = static_cast<std::int64_t>(a.rows);
        const auto [device_bytes, host_bytes] = potrf_workspace_bytes(a);
        auto workspace = allocate<Code>(1, static_cast<Index>(device_bytes));
        std::vector<Code> host_workspace(host_bytes);
        auto outcome = allocate<int>(1, 2);  // cuSOLVER's info; whether the factor is unusable
        int* const info = outcome.view().data;
        set_zero(outcome.view());

        cuda::reflect(stream(), a);
        cuda::check(
            cusolverDnXpotrf(solver(), nullptr, CUBLAS_FILL_MODE_LOWER, n, type, a.data, a.stride, type,
                             workspace.view().data, device_bytes, host_workspace.data(), host_bytes, info),
            "cusolverDnXpotrf");
        cuda::reflect(stream(), a);
        cuda::visit(stream(), 1, a.rows, cuda::CheckFactor<T>{a, info, info + 1});
        return read(outcome.view())[1] == 0;
    }

    /// Of device memory, which cholesky_upper(A) takes for itself.
    template <Real T>
    std::size_t cholesky_upper_bytes(MatrixView<T> a) const {
        return potrf_workspace_bytes(a).first + 2 * sizeof(int);
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
        cuda::check(cublasGemmEx(blas(), CUBLAS_OP_N, transpose == Transpose::No ? CUBLAS_OP_N : CUBLAS_OP_T,
                                 static_cast<int>(c.cols), static_cast<int>(c.rows), static_cast<int>(x.rows),
                                 &alpha, x.data, cuda_type<E>(), static_cast<int>(x.stride), a.data,
                                 cuda_type<E>(), static_cast<int>(a.stride), &beta, c.data, cuda_type<T>(),
                                 static_cast<int>(c.stride), compute_type<T>(), CUBLAS_GEMM_DEFAULT),
                    "cublasGemmEx");
    }

  private:
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

    /// X' <- X' op(R)^-T: from the right.
    template <Real T>
    void solve(cublasOperation_t operation, MatrixView<const T> r, MatrixView<T> x) {
        if (x.rows == 0 || x.cols == 0) return;
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH);
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
