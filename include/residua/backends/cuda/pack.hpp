#pragma once

#include <string>
#include <type_traits>

#include "residua/backends/cuda/error.hpp"
#include "residua/core/code_packing.hpp"
#include "residua/core/error.hpp"
#include "residua/core/view.hpp"

/// Packing of codes for the GPTQ format, on the device.
namespace residua::detail::cuda {

inline constexpr int pack_rows_a_block = 32;
inline constexpr int pack_columns_a_block = 256;

/// Words of 32 rows x 256 columns of codes. A warp packs a row, eight codes a lane, to shared memory; then
/// each warp writes a row of words, a lane for each row of codes.
template <int Bits>
__global__ void pack_rows_transposed_kernel(MatrixView<const Code> codes, MatrixView<std::uint32_t> words) {
    constexpr int width = pack_columns_a_block * Bits / 32;
    __shared__ std::uint32_t tile[pack_rows_a_block][width + 1];  // odd rows: no bank conflicts
    const Index r0 = Index(blockIdx.x) * pack_rows_a_block;
    const Index first = Index(blockIdx.y) * pack_columns_a_block;
    const Index column = first + 8 * Index(threadIdx.x);

    for (int i = threadIdx.y; i < pack_rows_a_block && r0 + i < codes.rows; i += blockDim.y) {
        const Code* source = codes.row(r0 + i) + column;
        std::uint64_t x = 0;
        if (column + 8 <= codes.cols && reinterpret_cast<std::uintptr_t>(source) % 8 == 0) {
            x = *reinterpret_cast<const std::uint64_t*>(source);
        } else {
            for (int k = 0; k < 8 && column + k < codes.cols; ++k) x |= std::uint64_t(source[k]) << (8 * k);
        }
        x = detail::join_codes<Bits>(x);
        auto* bytes = reinterpret_cast<unsigned char*>(tile[i]) + Bits * threadIdx.x;
        for (int k = 0; k < Bits; ++k) bytes[k] = static_cast<unsigned char>(x >> (8 * k));
    }
    __syncthreads();

    const Index row = r0 + threadIdx.x;
    for (int w = threadIdx.y; w < width; w += blockDim.y) {
        const Index to = first * Bits / 32 + w;
        if (to < words.rows && row < codes.rows) words(to, row) = tile[threadIdx.x][w];
    }
}

}  // namespace residua::detail::cuda

namespace residua {

/// `codes` (m, n), each below 2^bits, to `words` (packed_words(n), m), both in device memory, in the order of
/// `stream`: a GPTQ checkpoint's qweight. For 2, 3, 4 and 8 bits; throws std::invalid_argument for others and
/// for a wrong shape.
inline void cuda_pack_rows_transposed(cudaStream_t stream, MatrixView<const Code> codes, int bits,
                                      MatrixView<std::uint32_t> words) {
    require(words.rows == packed_words(codes.cols, bits) && words.cols == codes.rows,
            "cuda_pack_rows_transposed: words has shape",
            std::to_string(words.rows) + " x " + std::to_string(words.cols),
            std::to_string(packed_words(codes.cols, bits)) + " x " + std::to_string(codes.rows));
    if (codes.rows == 0 || codes.cols == 0) return;
    using namespace detail::cuda;
    const dim3 grid(static_cast<unsigned>((codes.rows + pack_rows_a_block - 1) / pack_rows_a_block),
                    static_cast<unsigned>((codes.cols + pack_columns_a_block - 1) / pack_columns_a_block));
    const dim3 block(32, 8);
    switch (bits) {
        case 2:
            pack_rows_transposed_kernel<2><<<grid, block, 0, stream>>>(codes, words);
            break;
        case 3:
            pack_rows_transposed_kernel<3><<<grid, block, 0, stream>>>(codes, words);
            break;
        case 4:
            pack_rows_transposed_kernel<4><<<grid, block, 0, stream>>>(codes, words);
            break;
        case 8:
            pack_rows_transposed_kernel<8><<<grid, block, 0, stream>>>(codes, words);
            break;
        default:
            reject("cuda_pack_rows_transposed: bits is", bits, "2, 3, 4 or 8");
    }
    check_launch("pack_rows_transposed_kernel");
}

}  // namespace residua
