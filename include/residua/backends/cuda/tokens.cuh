#pragma once

#include <algorithm>

#include "residua/backends/cuda/elements.cuh"
#include "residua/backends/cuda/vector.cuh"
#include "residua/core/view.hpp"

/// Operands of the moments' products: tokens selected, weighted, subtracted and converted.
namespace residua::detail::cuda {

/// Y_t = factor sqrt(weight_t) (X_{token_t} - S_{token_t}); without tokens all, without weights 1, without S
/// 0. V elements per thread.
template <class In, class Out, int V>
__global__ void gather_tokens_kernel(MatrixView<const In> x, MatrixView<const In> s,
                                     const std::int32_t* tokens, const float* weights, float factor,
                                     MatrixView<Out> y) {
    using Real = std::conditional_t<std::is_same_v<Out, double>, double, float>;
    const Index j = (Index(blockIdx.x) * blockDim.x + threadIdx.x) * V;
    if (j >= x.cols) return;
    for (Index i = blockIdx.y; i < y.rows; i += gridDim.y) {
        const Index token = tokens ? tokens[i] : i;
        const Real root = Real(factor) * (weights ? sqrt(Real(weights[i])) : Real(1));
        const auto a = *reinterpret_cast<const Vector<In, V>*>(x.row(token) + j);
        Vector<Out, V> result;
        if (s.data) {
            const auto b = *reinterpret_cast<const Vector<In, V>*>(s.row(token) + j);
            for (int v = 0; v < V; ++v) result.v[v] = Out(root * (Real(a.v[v]) - Real(b.v[v])));
        } else {
            for (int v = 0; v < V; ++v) result.v[v] = Out(root * Real(a.v[v]));
        }
        *reinterpret_cast<Vector<Out, V>*>(y.row(i) + j) = result;
    }
}

template <class In, class Out>
void gather_tokens(cudaStream_t stream, MatrixView<const In> x, MatrixView<const In> s,
                   const std::int32_t* tokens, const float* weights, float factor, MatrixView<Out> y) {
    constexpr int threads = 128;
    constexpr int width = 16 / int(std::max(sizeof(In), sizeof(Out)));
    const auto packed = [](const void* data, Index stride, std::size_t size) {
        return reinterpret_cast<std::uintptr_t>(data) % (width * size) == 0 && stride % width == 0;
    };
    const bool wide = x.cols % width == 0 && packed(x.data, x.stride, sizeof(In)) &&
                      packed(s.data, s.stride, sizeof(In)) && packed(y.data, y.stride, sizeof(Out));
    const Index columns = wide ? x.cols / width : x.cols;
    const dim3 blocks(static_cast<unsigned>((columns + threads - 1) / threads),
                      static_cast<unsigned>(std::min<Index>(y.rows, 32768)));
    if (wide) {
        gather_tokens_kernel<In, Out, width>
            <<<blocks, threads, 0, stream>>>(x, s, tokens, weights, factor, y);
    } else {
        gather_tokens_kernel<In, Out, 1><<<blocks, threads, 0, stream>>>(x, s, tokens, weights, factor, y);
    }
    check_launch("gather_tokens_kernel");
}

/// Operands of the blocks (i, j), i <= j, of H += Y' Y, for a batched product: blocks of X', Y' and H.
template <class E, class T>
struct BlockPointers {
    MatrixView<const E> y;
    MatrixView<T> h;
    Index block;
    const void **left, **right;
    void** sums;
    __device__ void operator()(Index i, Index j) const {
        if (j < i) return;
        const Index count = h.rows / block;
        const Index k = i * count - i * (i - 1) / 2 + j - i;
        left[k] = y.data + i * block;
        right[k] = y.data + j * block;
        sums[k] = h.row(i * block) + j * block;
    }
};

}  // namespace residua::detail::cuda
