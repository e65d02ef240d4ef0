#pragma once

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "residua/backends/cuda/context.hpp"
#include "residua/transform/cuda/hadamard.cuh"
#include "residua/transform/hadamard.hpp"

namespace residua {

/// A HadamardTransform of rows in device memory, Q = diag(s) (I (x) H (x) I_inner), on the context's stream.
///
/// One launch, with float arithmetic for every element type; it reads the matrix once and writes it once.
/// block * inner elements have to fit shared memory (56350 on an H100), and `inner` is a power of two. The
/// context must outlive the object.
class CudaHadamard {
  public:
    CudaHadamard(CudaContext& context, const HadamardTransform& transform)
        : context_(&context),
          features_(transform.features()),
          block_(transform.block()),
          inner_(transform.inner()),
          base_(transform.base()),
          scale_(static_cast<float>(transform.scale())) {
        require(std::has_single_bit(static_cast<std::uint64_t>(inner_)), "CudaHadamard: inner is", inner_,
                "a power of two");
        int device = 0;
        detail::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
        detail::cuda::check(
            cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
            "cudaDeviceGetAttribute");
        require(shared_bytes(block_ * inner_) <= shared_bytes_, "CudaHadamard: block * inner is",
                block_ * inner_, "what fits shared memory, " + std::to_string(shared_bytes_) + " bytes");
        upload_signs(transform);
        if (!known_base()) {
            forward_ = upload_base(false);
            backward_ = upload_base(true);
        }
    }

    /// y = x Q for x, y (rows, features) in device memory; y may be x.
    template <Element T>
    requires(sizeof(T) <= 4) void apply(MatrixView<const T> x, MatrixView<T> y) const { launch(x, y, false); }

    /// y = x Q^T: undoes apply.
    template <Element T>
    requires(sizeof(T) <= 4) void apply_transpose(MatrixView<const T> x, MatrixView<T> y) const {
        launch(x, y, true);
    }

  private:
    /// The orders in use by the largest models, whose signs are compiled in.
    bool known_base() const { return base_ == 1 || base_ == 12 || base_ == 20 || base_ == 28 || base_ == 36; }

    static Index shared_bytes(Index piece) {
        return (piece + piece / 32 + 1) * static_cast<Index>(sizeof(float));
    }

    void upload_signs(const HadamardTransform& transform) {
        if (transform.signs().empty()) return;
        std::vector<std::uint32_t> words(static_cast<std::size_t>((features_ + 31) / 32));
        for (std::size_t i = 0; i < transform.signs().size(); ++i) {
            if (transform.signs()[i] < 0) words[i / 32] |= 1u << i % 32;
        }
        signs_ = context_->allocate<std::uint32_t>(1, static_cast<Index>(words.size()));
        context_->write(words, signs_.view());
    }

    /// (outputs / 16, K, 16) of x H_K, or of x H_K^T
    DeviceMatrix<float> upload_base(bool transposed) const {
        const std::vector<signed char> h = detail::hadamard::hadamard_base(base_);
        const Index tiles = (base_ + detail::cuda::base_outputs - 1) / detail::cuda::base_outputs;
        std::vector<float> matrix(static_cast<std::size_t>(tiles * base_ * detail::cuda::base_outputs));
        for (Index j = 0; j < base_; ++j) {
            for (Index i = 0; i < base_; ++i) {
                const Index to = (j / detail::cuda::base_outputs * base_ + i) * detail::cuda::base_outputs +
                                 j % detail::cuda::base_outputs;
                matrix[static_cast<std::size_t>(to)] =
                    h[static_cast<std::size_t>(transposed ? j * base_ + i : i * base_ + j)];
            }
        }
        auto result = context_->allocate<float>(1, static_cast<Index>(matrix.size()));
        context_->write(matrix, result.view());
        return result;
    }

    /// The factor H_K first; then bits of the power of two, low ones in the middle: at both ends neighbouring
    /// threads read and write neighbouring elements.
    detail::cuda::HadamardPlan plan(bool transposed, bool pairs) const {
        detail::cuda::HadamardPlan plan;
        const Index span = block_ * inner_;
        Index blocks = 1;  // of a piece: small transforms share a thread block
        for (Index count = 1; count * span <= std::max<Index>(span, 4096) && count * span <= features_;
             ++count) {
            if (features_ / span % count == 0) blocks = count;
        }
        plan.piece = static_cast<int>(blocks * span);
        plan.pieces = static_cast<int>(features_ / plan.piece);
        plan.base = static_cast<int>(base_);
        plan.transposed = transposed;
        plan.scale = scale_;

        const int first_bit = std::countr_zero(static_cast<std::uint64_t>(inner_));
        const int last_bit = first_bit + std::countr_zero(static_cast<std::uint64_t>(block_ / base_));
        const int low = std::min(last_bit, std::max(first_bit, 5));
        const int high = last_bit - low;
        const int widest = pairs ? 4 : 5;
        const int parts = std::max((high + widest - 1) / widest, base_ == 1 ? std::min(high, 2) : 0);

        if (base_ > 1) plan.add({last_bit, -1});
        if (plan.count == 1 && low > first_bit) plan.add({first_bit, low - first_bit});
        int bit = last_bit;
        for (int part = parts; part > 0; --part) {
            const int bits = (bit - low + part - 1) / part;
            bit -= bits;
            plan.add({bit, bits});
            if (plan.count == 1 && low > first_bit) plan.add({first_bit, low - first_bit});
        }
        if (plan.count == 0) plan.add({first_bit, low - first_bit});
        if (plan.count == 1 && !known_base())
            plan.add({0, 0});  // a product needs shared memory: copy from it
        for (detail::cuda::HadamardPass* pass : {&plan.passes[0], &plan.passes[plan.count - 1]})
            pass->pairs = pairs && pass->shift > 0 && pass->bits >= 0;
        return plan;
    }

    template <class T>
    void launch(MatrixView<const T> x, MatrixView<T> y, bool transposed) const {
        detail::require_matrix("CudaHadamard: x", x, features_);
        detail::require_matrix("CudaHadamard: y", y, features_);
        require(x.rows == y.rows, "CudaHadamard: y has rows:", y.rows, std::to_string(x.rows) + " (as x)");
        if (x.rows == 0) return;
        const auto even = [](const void* data, Index stride) {
            return reinterpret_cast<std::uintptr_t>(data) % (2 * sizeof(T)) == 0 && stride % 2 == 0;
        };
        const bool pairs = sizeof(T) == 2 && even(x.data, x.stride) && even(y.data, y.stride);
        const detail::cuda::HadamardPlan steps = plan(transposed, pairs);
        require(x.rows <= Index(0x7fffffff) / steps.pieces, "CudaHadamard: x has rows:", x.rows,
                "fewer than 2^31 pieces of rows");
        const auto start = [&]<int K>(std::integral_constant<int, K>) {
            const int bytes = steps.count == 1 ? 0 : static_cast<int>(shared_bytes(steps.piece));
            if (bytes > 48 << 10)
                detail::cuda::check(cudaFuncSetAttribute(detail::cuda::hadamard_kernel<K, T>,
                                                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                                    "cudaFuncSetAttribute");
            const int most = steps.piece > 16384 ? detail::cuda::hadamard_threads : 256;
            const int threads = std::clamp((steps.piece / 32 + 31) / 32 * 32, 32, most);
            detail::cuda::hadamard_kernel<K, T>
                <<<static_cast<unsigned>(x.rows * steps.pieces), static_cast<unsigned>(threads),
                   static_cast<std::size_t>(bytes), context_->stream()>>>(
                    x, y, steps, signs_.view().data, (transposed ? backward_ : forward_).view().data);
            detail::cuda::check_launch("hadamard_kernel");
        };
        switch (known_base() ? base_ : 0) {
            case 1:
                return start(std::integral_constant<int, 1>());
            case 12:
                return start(std::integral_constant<int, 12>());
            case 20:
                return start(std::integral_constant<int, 20>());
            case 28:
                return start(std::integral_constant<int, 28>());
            case 36:
                return start(std::integral_constant<int, 36>());
            default:
                return start(std::integral_constant<int, 0>());
        }
    }

    CudaContext* context_;
    Index features_;
    Index block_;
    Index inner_;
    Index base_;
    float scale_;
    int shared_bytes_ = 0;
    DeviceMatrix<std::uint32_t> signs_;  // 32 a word
    DeviceMatrix<float> forward_;
    DeviceMatrix<float> backward_;
};

}  // namespace residua
