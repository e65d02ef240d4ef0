#pragma once

#include <memory>

#include "residua/backends/cuda/error.hpp"

namespace residua::detail::cuda {

using Stream = std::shared_ptr<CUstream_st>;
using BlasHandle = std::shared_ptr<cublasContext>;
using SolverHandle = std::shared_ptr<cusolverDnContext>;

/// A stream of its own, which does not wait for the legacy default stream.
inline Stream create_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return Stream(stream, [](cudaStream_t s) { cudaStreamDestroy(s); });
}

inline BlasHandle create_blas(cudaStream_t stream) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), "cublasCreate");
    BlasHandle owner(handle, [](cublasHandle_t h) { cublasDestroy(h); });
    check(cublasSetStream(handle, stream), "cublasSetStream");
    return owner;
}

inline SolverHandle create_solver(cudaStream_t stream) {
    cusolverDnHandle_t handle = nullptr;
    check(cusolverDnCreate(&handle), "cusolverDnCreate");
    SolverHandle owner(handle, [](cusolverDnHandle_t h) { cusolverDnDestroy(h); });
    check(cusolverDnSetStream(handle, stream), "cusolverDnSetStream");
    return owner;
}

/// A handle, stream or allocator that somebody else owns.
template <class T>
std::shared_ptr<T> borrow(T* handle) {
    return {handle, [](T*) {}};
}

/// Arithmetic of a borrowed or owned cuBLAS handle, and where it finds scalars, while this object lives.
class BlasMode {
  public:
    BlasMode(cublasHandle_t handle, cublasMath_t math, cublasPointerMode_t pointer = CUBLAS_POINTER_MODE_HOST)
        : handle_(handle) {
        check(cublasGetMathMode(handle, &math_), "cublasGetMathMode");
        check(cublasGetPointerMode(handle, &pointer_), "cublasGetPointerMode");
        check(cublasSetMathMode(handle, math), "cublasSetMathMode");
        const cublasStatus_t status = cublasSetPointerMode(handle, pointer);
        if (status != CUBLAS_STATUS_SUCCESS) cublasSetMathMode(handle, math_);  // no destructor will run
        check(status, "cublasSetPointerMode");
    }
    BlasMode(const BlasMode&) = delete;
    BlasMode& operator=(const BlasMode&) = delete;
    ~BlasMode() {
        cublasSetMathMode(handle_, math_);
        cublasSetPointerMode(handle_, pointer_);
    }

  private:
    cublasHandle_t handle_;
    cublasMath_t math_ = CUBLAS_DEFAULT_MATH;
    cublasPointerMode_t pointer_ = CUBLAS_POINTER_MODE_HOST;
};

/// A marked point of a stream.
class Event {
  public:
    explicit Event(cudaStream_t stream) {
        cudaEvent_t event = nullptr;
        check(cudaEventCreate(&event), "cudaEventCreate");
        event_.reset(event, [](cudaEvent_t e) { cudaEventDestroy(e); });
        check(cudaEventRecord(event, stream), "cudaEventRecord");
    }

    /// Waits for `to`.
    static double seconds(const Event& from, const Event& to) {
        float milliseconds = 0;
        check(cudaEventSynchronize(to.event_.get()), "cudaEventSynchronize");
        check(cudaEventElapsedTime(&milliseconds, from.event_.get(), to.event_.get()),
              "cudaEventElapsedTime");
        return 1e-3 * static_cast<double>(milliseconds);
    }

  private:
    std::shared_ptr<CUevent_st> event_;
};

}  // namespace residua::detail::cuda
