#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "residua/backends/cuda/error.hpp"
#include "residua/core/view.hpp"

namespace residua {

/// Where device memory comes from. An engine lends its own by deriving from this class.
class DeviceAllocator {
  public:
    virtual ~DeviceAllocator() = default;

    /// Memory that work on `stream` may use from now on, aligned to 256 bytes; null if there is none.
    virtual void* allocate(std::size_t bytes, cudaStream_t stream) = 0;

    /// Work on `stream` may still use the memory.
    virtual void deallocate(void* memory, std::size_t bytes, cudaStream_t stream) noexcept = 0;
};

/// A stream-ordered pool of its own, which keeps what it has got until it is destroyed or trimmed.
class PoolAllocator : public DeviceAllocator {
  public:
    PoolAllocator() {
        int device = 0;
        detail::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
        cudaMemPoolProps properties = {};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.location = {cudaMemLocationTypeDevice, device};
        detail::cuda::check(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate");
        unsigned long long keep = ~0ull;
        detail::cuda::check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep),
                            "cudaMemPoolSetAttribute");
    }
    PoolAllocator(const PoolAllocator&) = delete;
    PoolAllocator& operator=(const PoolAllocator&) = delete;
    ~PoolAllocator() override { cudaMemPoolDestroy(pool_); }

    void* allocate(std::size_t bytes, cudaStream_t stream) override {
        void* memory = nullptr;
        const cudaError_t status = cudaMallocFromPoolAsync(&memory, bytes, pool_, stream);
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            return nullptr;
        }
        detail::cuda::check(status, "cudaMallocFromPoolAsync");
        return memory;
    }

    void deallocate(void* memory, std::size_t, cudaStream_t stream) noexcept override {
        cudaFreeAsync(memory, stream);
    }

    /// Gives memory that is not in use back to the device.
    void trim() { detail::cuda::check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo"); }

  private:
    cudaMemPool_t pool_ = nullptr;
};

/// A stream and the memory that is allocated and freed in its order; counts what is in use.
class DeviceMemory {
  public:
    DeviceMemory(std::shared_ptr<DeviceAllocator> allocator, std::shared_ptr<CUstream_st> stream)
        : allocator_(std::move(allocator)), stream_(std::move(stream)) {}

    cudaStream_t stream() const { return stream_.get(); }

    void* allocate(std::size_t bytes) {
        void* memory = allocator_->allocate(bytes, stream());
        if (!memory) {
            std::size_t free = 0;
            std::size_t total = 0;
            cudaMemGetInfo(&free, &total);
            throw DeviceMemoryError("DeviceAllocator::allocate", cudaErrorMemoryAllocation, bytes, free,
                                    total);
        }
        used_ += bytes;
        peak_ = std::max(peak_, used_);
        return memory;
    }

    void deallocate(void* memory, std::size_t bytes) noexcept {
        allocator_->deallocate(memory, bytes, stream());
        used_ -= bytes;
    }

    std::size_t used_bytes() const { return used_; }
    std::size_t peak_bytes() const { return peak_; }
    void reset_peak() { peak_ = used_; }

  private:
    std::shared_ptr<DeviceAllocator> allocator_;
    std::shared_ptr<CUstream_st> stream_;
    std::size_t used_ = 0;
    std::size_t peak_ = 0;
};

/// Owning row-major matrix in device memory. Movable, not copyable.
template <class T>
class DeviceMatrix {
  public:
    DeviceMatrix() = default;

    /// Contents are unspecified.
    DeviceMatrix(std::shared_ptr<DeviceMemory> memory, Index rows, Index cols) : rows_(rows), cols_(cols) {
        require(rows >= 0, "DeviceMatrix: rows is", rows, "at least 0");
        require(cols >= 0, "DeviceMatrix: cols is", cols, "at least 0");
        require(detail::product_fits(rows, cols, sizeof(T)), "DeviceMatrix: rows times cols is",
                std::to_string(rows) + " * " + std::to_string(cols), "a matrix of fewer than 2^63 bytes");
        if (rows * cols == 0) return;
        const std::size_t bytes = static_cast<std::size_t>(rows * cols) * sizeof(T);
        T* const data = static_cast<T*>(memory->allocate(bytes));
        data_ = {data, Free{std::move(memory), bytes}};
    }

    DeviceMatrix(DeviceMatrix&& other) noexcept { *this = std::move(other); }
    DeviceMatrix& operator=(DeviceMatrix&& other) noexcept {
        data_ = std::move(other.data_);
        rows_ = std::exchange(other.rows_, 0);
        cols_ = std::exchange(other.cols_, 0);
        return *this;
    }

    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    Index size() const { return rows_ * cols_; }
    MatrixView<T> view() { return {data_.get(), rows_, cols_}; }
    MatrixView<const T> view() const { return {data_.get(), rows_, cols_}; }

  private:
    struct Free {
        std::shared_ptr<DeviceMemory> memory;
        std::size_t bytes = 0;
        void operator()(T* data) const { memory->deallocate(data, bytes); }
    };

    static_assert(std::is_trivially_copyable_v<T>);
    std::unique_ptr<T, Free> data_;
    Index rows_ = 0;
    Index cols_ = 0;
};

}  // namespace residua
