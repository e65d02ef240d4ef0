#pragma once

#include <vector>

#include "residua/backends/backend.hpp"
#include "residua/core/matrix.hpp"
#include "residua/core/report.hpp"

namespace residua {

/// A quantized layer: w_rj ~ grid.decode(codes_rj, {scales_rg, zeros_rg}) with g = group_index[j].
///
/// For m output rows, n input columns in the original order and G groups, in memory of the backend:
///   codes (m, n), scales (m, G), zeros (m, G); group_index (n) on the host.
/// Empty unless report.status is Status::Success.
template <Real T, Backend<T> B, Grid<T> G>
struct QuantizedMatrix {
    typename B::template Matrix<Code> codes = {};
    typename B::template Matrix<T> scales = {};
    typename B::template Matrix<T> zeros = {};
    std::vector<std::int32_t> group_index = {};
    G grid = {};
    Report report = {};

    explicit operator bool() const { return report.status == Status::Success; }

    /// (m, n) in host memory. Throws std::logic_error if there are no codes.
    Matrix<T> dequantize(B& backend) const {
        if (!*this) {
            throw std::logic_error("residua: QuantizedMatrix::dequantize: no codes, status is " +
                                   std::string(to_string(report.status)));
        }
        const Index rows = codes.rows();
        const Index cols = codes.cols();
        const std::vector<Code> code = backend.read(codes.view());
        const std::vector<T> scale = backend.read(scales.view());
        const std::vector<T> zero = backend.read(zeros.view());
        Matrix<T> values(rows, cols);
        for (Index r = 0; r < rows; ++r) {
            for (Index j = 0; j < cols; ++j) {
                const auto g =
                    static_cast<std::size_t>(r * scales.cols() + group_index[static_cast<std::size_t>(j)]);
                values(r, j) = grid.decode(code[static_cast<std::size_t>(r * cols + j)],
                                           GridParams<T>{scale[g], zero[g]});
            }
        }
        return values;
    }
};

}  // namespace residua
