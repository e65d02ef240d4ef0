#pragma once

#include "../operations.hpp"
#include "elementwise.cuh"

namespace llama::cuda {

/// Turns the pairs (i, i + size/2) of each head of each token by its position's angles, four pairs a thread.
struct Turn {
    residua::MatrixView<bfloat16> x;  // (tokens, heads * size)
    const std::int32_t* positions;
    residua::MatrixView<const float> cos, sin;  // (positions, size / 2)
    Index size;

    /// j counts eights of features: as many as there are fours of pairs.
    __device__ void operator()(Index t, Index j) const {
        const Index half = size / 2;
        const Index head = j / size;
        const Index i = j % size / 2;
        uint2* first = reinterpret_cast<uint2*>(x.row(t) + head * size + i);
        uint2* second = reinterpret_cast<uint2*>(x.row(t) + head * size + half + i);
        const float4 c = *reinterpret_cast<const float4*>(cos.row(positions[t]) + i);
        const float4 s = *reinterpret_cast<const float4*>(sin.row(positions[t]) + i);
        const uint2 a = *first, b = *second;
        const float a0 = first_of(a.x), a1 = second_of(a.x), a2 = first_of(a.y), a3 = second_of(a.y);
        const float b0 = first_of(b.x), b1 = second_of(b.x), b2 = first_of(b.y), b3 = second_of(b.y);
        *first = make_uint2(pack(a0 * c.x - b0 * s.x, a1 * c.y - b1 * s.y),
                            pack(a2 * c.z - b2 * s.z, a3 * c.w - b3 * s.w));
        *second = make_uint2(pack(b0 * c.x + a0 * s.x, b1 * c.y + a1 * s.y),
                             pack(b2 * c.z + a2 * s.z, b3 * c.w + a3 * s.w));
    }
};

/// RotaryEmbedding with its tables in device memory.
class Rotary {
  public:
    Rotary(residua::CudaBackend& gpu, const RotaryEmbedding& table, Index size)
        : size_(size), cos_(upload(gpu, table.cos())), sin_(upload(gpu, table.sin())) {}

    Index positions() const { return cos_.rows(); }

    /// x: (tokens, heads * size); positions: (tokens).
    void apply(cudaStream_t stream, residua::MatrixView<bfloat16> x, const std::int32_t* positions) const {
        for_eights(stream, x.rows, x.cols, Turn{x, positions, cos_.view(), sin_.view(), size_});
    }

  private:
    static residua::DeviceMatrix<float> upload(residua::CudaBackend& gpu, const Rows& table) {
        auto copy = gpu.allocate<float>(table.rows(), table.cols());
        gpu.write(std::vector<float>(table.data(), table.data() + table.size()), copy.view());
        return copy;
    }

    Index size_;
    residua::DeviceMatrix<float> cos_, sin_;
};

}  // namespace llama::cuda
