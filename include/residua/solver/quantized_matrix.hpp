#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "residua/backends/backend.hpp"
#include "residua/core/report.hpp"
#include "residua/solver/quantized_layer.hpp"

namespace residua {

/// A quantized layer where the backend keeps it: w_rj ~ grid.decode(codes_rj, {scales_rg, zeros_rg}) with
/// g = group_index[j].
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

    /// A copy in host memory. File formats hold scales of at most 32 bits: to write the result of a solve in
    /// double, ask for to_host<float>(backend). Throws std::logic_error if there are no codes.
    template <Real U = T>
    [[nodiscard]] QuantizedLayer<G, U> to_host(B& backend) const {
        if (!*this) {
            throw std::logic_error(
                "residua: QuantizedMatrix::to_host: there are no codes, for the solve ended with " +
                std::string(to_string(report.status)));
        }
        const auto read = [&](const auto& matrix) {
            const std::vector<T> values = backend.read(matrix.view());
            return std::vector<U>(values.begin(), values.end());
        };
        return {.rows = codes.rows(),
                .cols = codes.cols(),
                .groups = scales.cols(),
                .codes = backend.read(codes.view()),
                .scales = read(scales),
                .zeros = read(zeros),
                .group_index = group_index,
                .grid = grid};
    }

    /// The weights that the codes stand for, (m, n) in host memory. Throws std::logic_error if there are no
    /// codes.
    [[nodiscard]] Matrix<T> dequantize(B& backend) const { return to_host(backend).dequantize(); }
};

}  // namespace residua
