#pragma once

#include <algorithm>

#include "residua/backends/cuda/dense.hpp"
#include "residua/backends/cuda/tokens.cuh"

namespace residua::detail {

/// Sums over tokens.
///
/// 16-bit activations whose weights are all 0 or 1 are multiplied by the tensor cores as they are, with sums
/// in fp32: their products are exact. Everything else is converted to T first. Activations and weights may
/// be in host or device memory; scratch is bounded by a batch of tokens.
class CudaAccumulation : public CudaDense {
  public:
    using CudaDense::CudaDense;

    /// One batched product for the blocks of the upper triangle: about 1/2 + block / 2n of a full product.
    template <Element In, Real T>
    void accumulate_gram(MatrixView<const In> x, std::span<const float> weights, MatrixView<T> h) {
        for_batches<T>(x, {}, {}, weights, [&](auto batch, auto) {
            const Index block = h.rows < 8192 ? 512 : 1024;
            const Index even = h.rows / block * block;
            upper_blocks(batch, block, h.block(0, 0, even, even));
            rank_update(T(1), batch, batch.block(0, even, batch.rows, h.rows - even),
                        h.block(0, even, h.rows, h.rows - even));
        });
    }

    /// Deviations are halved on the way, so that those of float16 activations cannot overflow. They are
    /// rounded to the type of the activations, which is exact for most of them: neighbours in value differ by
    /// few units in their last place.
    template <Element In, Real T>
    void accumulate_cross(MatrixView<const In> y, MatrixView<const In> y_fp, MatrixView<const In> x,
                          std::span<const float> weights, MatrixView<T> d) {
        for_batches<T>(x, y, y_fp, weights, [&](auto batch, auto halved_deviations) {
            rank_update(T(2), halved_deviations, batch, d);
        });
    }

  private:
    /// Sums inside a product are truncated by the tensor cores: no more tokens than this in one.
    static constexpr Index most_tokens = 4096;

    enum class Weighting { None, Mask, General };

    template <class E, Real T>
    void rank_update(T alpha, MatrixView<const E> left, MatrixView<const E> right, MatrixView<T> c) {
        if (c.rows == 0 || c.cols == 0) return;
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH);
        product<E, T>(alpha, Transpose::Yes, left, right, T(1), c);
    }

    /// H += Y' Y in the upper triangle of blocks. Y: (tokens, >= n), H: (n, n), n a multiple of `block`.
    template <class E, Real T>
    void upper_blocks(MatrixView<const E> y, Index block, MatrixView<T> h) {
        const Index rows = h.rows / block;
        const Index count = rows * (rows + 1) / 2;
        if (count == 0) return;
        auto pointers = allocate<void*>(3, count);
        const auto list = [&](Index i) { return pointers.view().row(i); };
        const auto left = const_cast<const void**>(list(0));
        const auto right = const_cast<const void**>(list(1));
        cuda::visit(stream(), rows, rows, cuda::BlockPointers<E, T>{y, h, block, left, right, list(2)});
        const cuda::BlasMode mode(blas(), CUBLAS_DEFAULT_MATH);
        const T one = T(1);
        const int side = static_cast<int>(block);
        const int stride = static_cast<int>(y.stride);
        cuda::check(
            cublasGemmBatchedEx(blas(), CUBLAS_OP_N, CUBLAS_OP_T, side, side, static_cast<int>(y.rows), &one,
                                right, cuda_type<E>(), stride, left, cuda_type<E>(), stride, &one, list(2),
                                cuda_type<T>(), static_cast<int>(h.stride), static_cast<int>(count),
                                compute_type<T>(), CUBLAS_GEMM_DEFAULT),
            "cublasGemmBatchedEx");
    }

    /// body(activations, halved deviations or an empty view) for batches of the tokens of positive weight.
    /// Deviations are those of y_fp from y, which may be x; both may be empty.
    template <Real T, Element In, class Body>
    void for_batches(MatrixView<const In> x, MatrixView<const In> y, MatrixView<const In> y_fp,
                     std::span<const float> weights, Body body) {
        constexpr bool tensor_cores = sizeof(In) == 2 && std::is_same_v<T, float>;
        const Weighting weighting = weighting_of(weights);
        const Index row_bytes =
            std::max(x.cols, y.cols) * static_cast<Index>(std::max(sizeof(In), sizeof(T)));
        const Index size =
            std::clamp<Index>(static_cast<Index>(options().batch_bytes) / row_bytes, 64, most_tokens);
        for (Index first = 0; first < x.rows; first += size) {
            const Index count = std::min(size, x.rows - first);
            const auto part = weighting == Weighting::None ? weights
                                                           : weights.subspan(static_cast<std::size_t>(first),
                                                                             static_cast<std::size_t>(count));
            Matrix<In> copies[3];
            const auto near = [&](MatrixView<const In> all, Matrix<In>& copy) {
                return all.data ? near_device(all.row_range(first, count), copy) : all;
            };
            const auto near_x = near(x, copies[0]);
            const auto near_y = y.data == x.data ? near_x : near(y, copies[1]);
            const auto near_y_fp = near(y_fp, copies[2]);
            if (tensor_cores && weighting != Weighting::General) {
                operands<In, In>(near_x, near_y, near_y_fp, part, weighting, body);
            } else {
                operands<In, T>(near_x, near_y, near_y_fp, part, weighting, body);
            }
        }
    }

    /// One batch, with elements Out.
    template <Element In, class Out, class Body>
    void operands(MatrixView<const In> x, MatrixView<const In> y, MatrixView<const In> y_fp,
                  std::span<const float> weights, Weighting weighting, Body body) {
        std::vector<std::int32_t> tokens;
        std::vector<float> positive;
        if (weighting != Weighting::None) {
            for (std::size_t t = 0; t < weights.size(); ++t) {
                if (weights[t] == 0) continue;
                tokens.push_back(static_cast<std::int32_t>(t));
                positive.push_back(weights[t]);
            }
            if (tokens.empty()) return;
        }
        const Index count = weighting == Weighting::None ? x.rows : static_cast<Index>(tokens.size());
        const auto token_list = upload(std::span<const std::int32_t>(tokens));
        const auto weight_list = upload(weighting == Weighting::General ? std::span<const float>(positive)
                                                                        : std::span<const float>());
        const auto gather = [&](MatrixView<const In> from, MatrixView<const In> minus, float factor,
                                Matrix<Out>& to) {
            to = allocate<Out>(count, from.cols);
            cuda::gather_tokens(stream(), from, minus, token_list.view().data, weight_list.view().data,
                                factor, to.view());
            return std::as_const(to).view();
        };

        Matrix<Out> converted;
        Matrix<Out> deviations;
        MatrixView<const Out> batch;
        if constexpr (std::is_same_v<In, Out>) batch = x;
        if (!std::is_same_v<In, Out> || weighting != Weighting::None) batch = gather(x, {}, 1.0f, converted);
        body(batch, y_fp.data ? gather(y_fp, y, 0.5f, deviations) : MatrixView<const Out>());
    }

    static Weighting weighting_of(std::span<const float> weights) {
        const auto is = [&](auto predicate) {
            return std::all_of(weights.begin(), weights.end(), predicate);
        };
        if (is([](float w) { return w == 1; })) return Weighting::None;
        return is([](float w) { return w == 0 || w == 1; }) ? Weighting::Mask : Weighting::General;
    }

  protected:
    /// The matrix itself, or a copy of it if it is in host memory.
    template <class In>
    MatrixView<const In> near_device(MatrixView<const In> a, Matrix<In>& copy) {
        if (a.rows == 0 || !in_host_memory(a.data)) return a;
        copy = allocate<In>(a.rows, a.cols);
        copy_rows(copy.view().data, a.cols, a.data, a.stride, a.rows, a.cols);
        return std::as_const(copy).view();
    }
};

}  // namespace residua::detail
