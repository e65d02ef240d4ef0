#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <stdexcept>
#include <string>

namespace residua {

/// A call of the CUDA runtime, cuBLAS or cuSOLVER failed.
class DeviceError : public std::runtime_error {
  public:
    DeviceError(std::string call, int code, std::string text)
        : std::runtime_error("residua: " + call + ": " + text + " (code " + std::to_string(code) + ")"),
          call_(std::move(call)),
          text_(std::move(text)),
          code_(code) {}

    const std::string& call() const { return call_; }  ///< the function that failed
    int code() const { return code_; }                 ///< its status
    const std::string& text() const { return text_; }  ///< what the status means

  private:
    std::string call_;
    std::string text_;
    int code_;
};

/// No device memory was left; the text says how much was asked for and how much was free.
class DeviceMemoryError : public DeviceError {
  public:
    DeviceMemoryError(std::string call, int code, std::size_t asked, std::size_t free, std::size_t total)
        : DeviceError(std::move(call), code,
                      "out of memory: " + mebibytes(asked) + " asked for, " + mebibytes(free) + " of " +
                          mebibytes(total) + " free"),
          asked_(asked),
          free_(free) {}

    std::size_t asked_bytes() const { return asked_; }
    std::size_t free_bytes() const { return free_; }

  private:
    static std::string mebibytes(std::size_t bytes) {
        return std::to_string((bytes + 0xfffff) >> 20) + " MiB";
    }

    std::size_t asked_;
    std::size_t free_;
};

namespace detail::cuda {

inline void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // reported here: later launches must not find it again
    throw DeviceError(call, status, cudaGetErrorString(status));
}

inline void check(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(call, status, cublasGetStatusString(status));
}

inline void check(cusolverStatus_t status, const char* call) {
    if (status == CUSOLVER_STATUS_SUCCESS) return;
    const char* text = status == CUSOLVER_STATUS_NOT_INITIALIZED    ? "not initialized"
                       : status == CUSOLVER_STATUS_ALLOC_FAILED     ? "allocation failed"
                       : status == CUSOLVER_STATUS_INVALID_VALUE    ? "invalid value"
                       : status == CUSOLVER_STATUS_ARCH_MISMATCH    ? "architecture mismatch"
                       : status == CUSOLVER_STATUS_EXECUTION_FAILED ? "execution failed"
                                                                    : "internal error";
    throw DeviceError(call, status, text);
}

/// The launch on the line before.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace detail::cuda
}  // namespace residua
