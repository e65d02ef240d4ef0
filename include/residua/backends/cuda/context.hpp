#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "residua/backends/cuda/handles.hpp"
#include "residua/backends/cuda/memory.hpp"

namespace residua {

/// Arithmetic of the large products of float matrices, of triangular solves and factorizations. Sums are in fp32,
/// those of moments always. Report::products and Report::factorization tell what a solve has used.
enum class Precision {
    fp32,  ///< no tensor cores
    tf32,  ///< products on tensor cores, with operands rounded to 11 significant bits
    split,  ///< products on tensor cores, with operands of 22 significant bits, as sums of two float16 ones: as
            ///< accurate as fp32
};

/// What a CudaBackend uses. Whatever is not given, it creates and owns; the rest is the caller's and must
/// outlive the backend and its matrices.
struct CudaOptions {
    Precision precision = Precision::split;
    std::optional<cudaStream_t> stream = {};         ///< all work is in the order of this stream
    cublasHandle_t blas = nullptr;                   ///< must be set to `stream`
    cusolverDnHandle_t solver = nullptr;             ///< must be set to `stream`
    DeviceAllocator* allocator = nullptr;            ///< default: a stream-ordered pool of its own
    std::size_t slab_bytes = std::size_t(4) << 30;   ///< of the columns that are quantized together
    std::size_t batch_bytes = std::size_t(1) << 28;  ///< of a copy of activations or weights, at most
};

/// Stream, handles and memory of a backend on the device that is current when it is made.
///
/// Nothing here or in CudaBackend waits for the device but what returns a value to the host: read, diagonal,
/// dot, seconds, cholesky_upper, and write and uploads from pageable memory, as CUDA copies those.
class CudaContext {
  public:
    template <class U>
    using Matrix = DeviceMatrix<U>;
    using Timestamp = detail::cuda::Event;

    explicit CudaContext(const CudaOptions& options = {}) : options_(options) {
        stream_ = options.stream ? detail::cuda::borrow(*options.stream) : detail::cuda::create_stream();
        memory_ = std::make_shared<DeviceMemory>(
            options.allocator ? detail::cuda::borrow(options.allocator) : std::make_shared<PoolAllocator>(),
            stream_);
        blas_ = options.blas ? detail::cuda::borrow(options.blas) : detail::cuda::create_blas(stream());
        solver_ =
            options.solver ? detail::cuda::borrow(options.solver) : detail::cuda::create_solver(stream());
        check_streams();
        if (!options.blas) {
            blas_workspace_ = allocate<Code>(1, blas_workspace_bytes);
            detail::cuda::check(cublasSetWorkspace(blas(), blas_workspace_.view().data, blas_workspace_bytes),
                                "cublasSetWorkspace");
        }
    }

    const CudaOptions& options() const { return options_; }
    cudaStream_t stream() const { return stream_.get(); }
    cublasHandle_t blas() const { return blas_.get(); }
    cusolverDnHandle_t solver() const { return solver_.get(); }

    /// Counts every matrix and workspace in use, cuBLAS's own 32 MiB included.
    DeviceMemory& memory() const { return *memory_; }

    void synchronize() const {
        detail::cuda::check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
    }

    template <class U>
    Matrix<U> allocate(Index rows, Index cols) {
        return Matrix<U>(memory_, rows, cols);
    }

    /// The same: freed memory stays in the pool for the next solve.
    template <class U>
    Matrix<U> workspace(Index rows, Index cols) {
        return allocate<U>(rows, cols);
    }

    /// Waits for the stream.
    template <class U>
    std::vector<std::remove_const_t<U>> read(MatrixView<U> a) {
        std::vector<std::remove_const_t<U>> values(static_cast<std::size_t>(a.rows * a.cols));
        copy_rows(values.data(), a.cols, a.data, a.stride, a.rows, a.cols);
        synchronize();
        return values;
    }

    template <class U>
    void write(const std::vector<U>& values, MatrixView<U> a) {
        copy_rows(a.data, a.stride, values.data(), a.cols, a.rows, a.cols);
        synchronize();
    }

    Timestamp timestamp() { return Timestamp(stream()); }
    double seconds(const Timestamp& from, const Timestamp& to) { return Timestamp::seconds(from, to); }

  protected:
    /// Between any two places, in the order of the stream.
    template <class U>
    void copy_rows(U* to, Index to_stride, const U* from, Index from_stride, Index rows, Index cols) {
        if (rows == 0 || cols == 0) return;
        const auto bytes = [](Index count) { return static_cast<std::size_t>(count) * sizeof(U); };
        if (to_stride == cols && from_stride == cols) {  // much faster than in two dimensions
            detail::cuda::check(cudaMemcpyAsync(to, from, bytes(rows * cols), cudaMemcpyDefault, stream()),
                                "cudaMemcpyAsync");
            return;
        }
        detail::cuda::check(cudaMemcpy2DAsync(to, bytes(to_stride), from, bytes(from_stride), bytes(cols),
                                              static_cast<std::size_t>(rows), cudaMemcpyDefault, stream()),
                            "cudaMemcpy2DAsync");
    }

    /// Host values in device memory. CUDA has read them when this returns: they are pageable.
    template <class U>
    Matrix<U> upload(std::span<const U> values) {
        Matrix<U> copy = allocate<U>(1, static_cast<Index>(values.size()));
        copy_rows(copy.view().data, copy.cols(), values.data(), copy.cols(), 1, copy.cols());
        return copy;
    }

    Matrix<std::int32_t> upload_indices(std::span<const Index> values) {
        const std::vector<std::int32_t> narrow(values.begin(), values.end());
        return upload(std::span<const std::int32_t>(narrow));
    }

    static bool in_host_memory(const void* data) {
        cudaPointerAttributes attributes = {};
        detail::cuda::check(cudaPointerGetAttributes(&attributes, data), "cudaPointerGetAttributes");
        return attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged;
    }

  private:
    static constexpr Index blas_workspace_bytes = Index(32) << 20;

    void check_streams() const {
        cudaStream_t stream_of_handle = nullptr;
        detail::cuda::check(cublasGetStream(blas(), &stream_of_handle), "cublasGetStream");
        require(stream_of_handle == stream(), "CudaOptions: blas uses", "another stream", "options.stream");
        detail::cuda::check(cusolverDnGetStream(solver(), &stream_of_handle), "cusolverDnGetStream");
        require(stream_of_handle == stream(), "CudaOptions: solver uses", "another stream", "options.stream");
    }

    CudaOptions options_;
    detail::cuda::Stream stream_;
    std::shared_ptr<DeviceMemory> memory_;
    detail::cuda::BlasHandle blas_;
    detail::cuda::SolverHandle solver_;
    Matrix<Code> blas_workspace_;
};

}  // namespace residua
