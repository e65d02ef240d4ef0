#pragma once

#include <initializer_list>
#include <utility>

#include "residua/core/ordering.hpp"
#include "residua/solver/moments.hpp"
#include "residua/solver/quantized_matrix.hpp"

namespace residua {

namespace detail {

/// Adds the objective of `error` = (W - Q)' to `sum`. `shifted` = D' W' + D_h' or empty, `scratch` (>= block, rows).
///
/// tr(E H E') takes the upper triangle of H twice off the diagonal blocks: m n^2 operations.
template <Real T, Backend<T> B>
void add_objective(B& backend, MatrixView<const T> h, MatrixView<const T> error, MatrixView<const T> shifted,
                   MatrixView<T> scratch, Objective& sum) {
    double symmetric = 0;
    for (Index begin = 0; begin < error.rows; begin += scratch.rows) {
        const Index height = std::min(scratch.rows, error.rows - begin);
        const Index end = begin + height;
        const MatrixView<const T> rows = error.row_range(begin, height);
        const MatrixView<T> y = scratch.row_range(0, height);
        backend.multiply(T(1), Transpose::No, h.block(begin, begin, height, height), rows, T(0), y);
        backend.multiply(T(2), Transpose::No, h.block(begin, end, height, error.rows - end),
                         error.row_range(end, error.rows - end), T(1), y);
        symmetric += backend.dot(rows, MatrixView<const T>(y));
    }
    sum.symmetric += symmetric;
    if (shifted.data)
        sum.asymmetric = sum.asymmetric.value_or(0) + symmetric + 2 * backend.dot(error, shifted);
}

/// objectives() of rows of a layer, `first_row` and those behind it.
template <Element In, Real T, Backend<T> B, Grid<T> G>
std::vector<Objective> objectives_of_rows(const Moments<T, B>& moments, MatrixView<const In> weights,
                                          Index first_row,
                                          std::initializer_list<const QuantizedMatrix<T, B, G>*> candidates) {
    constexpr Index block = 512;
    const Index n = moments.in_features();
    const Index m = weights.rows;
    detail::require_matrix("objectives: weights", weights, n);
    require(m >= 1, "objectives: weights has rows:", m, "at least 1");
    require(moments.gram().rows == n, "objectives: the moments were", "used up by a solver",
            "moments with their memory");
    for (const auto* q : candidates) {
        require(q->codes.rows() == m && q->codes.cols() == n,
                "objectives: a candidate has rows:", q->codes.rows(),
                std::to_string(m) + ", and the columns of the weights");
    }

    const MatrixView<const T> stream = moments.stream_cross();
    B& backend = moments.backend();
    const bool shifts = moments.has_reference() || moments.has_residual_stream();
    const Index slab = std::min(m, backend.slab_rows(n, m));
    const std::vector<Index> natural = detail::natural_order(n);
    auto flag = backend.template allocate<Code>(1, 1);
    auto original = backend.template workspace<T>(n, slab);
    auto error = backend.template workspace<T>(n, slab);
    auto shifted = backend.template workspace<T>(shifts ? n : 0, slab);
    auto scratch = backend.template workspace<T>(std::min(block, n), slab);
    auto codes = backend.template allocate<Code>(n, slab);

    std::vector<Objective> sums(candidates.size());
    for (Index first = 0; first < m; first += slab) {
        const Index rows = std::min(slab, m - first);
        const auto part = [&](auto& matrix) { return matrix.view().block(0, 0, matrix.rows(), rows); };
        const MatrixView<const T> w = part(original);
        backend.load_columns(weights.row_range(first, rows), natural, part(original), flag.view().data);
        if (stream.data)
            backend.load_columns(stream.row_range(first_row + first, rows), natural, part(shifted),
                                 flag.view().data);
        if (moments.has_reference())
            backend.multiply(T(1), Transpose::Yes, moments.cross(), w, T(stream.data ? 1 : 0), part(shifted));
        auto sum = sums.begin();
        for (const auto* q : candidates) {
            const Index groups = q->scales.cols();
            auto scales = backend.template workspace<T>(groups, rows);
            auto zeros = backend.template workspace<T>(groups, rows);
            backend.transpose(q->codes.view().row_range(first, rows), part(codes));
            backend.transpose(q->scales.view().row_range(first, rows), scales.view());
            backend.transpose(q->zeros.view().row_range(first, rows), zeros.view());
            backend.copy(w, part(error));
            const std::vector<Index> group_of(q->group_index.begin(), q->group_index.end());
            backend.subtract_decoded(q->grid, MatrixView<const Code>(part(codes)), group_of,
                                     std::as_const(scales).view(), std::as_const(zeros).view(), part(error));
            detail::add_objective(backend, moments.gram(), MatrixView<const T>(part(error)),
                                  shifts ? MatrixView<const T>(part(shifted)) : MatrixView<const T>(),
                                  part(scratch), *sum++);
        }
    }
    return sums;
}

}  // namespace detail

/// Objectives on the tokens of `moments` of quantized matrices in place of `weights` (out_features,
/// in_features).
///
/// Costs m n^2 operations each, and 2 m n^2 once if the moments have reference inputs. Throws
/// std::invalid_argument where shapes do not match, those of the moments' residual stream too.
template <Element In, Real T, Backend<T> B, Grid<T> G>
std::vector<Objective> objectives(const Moments<T, B>& moments, MatrixView<const In> weights,
                                  std::initializer_list<const QuantizedMatrix<T, B, G>*> candidates) {
    const Index rows = moments.stream_cross().rows;
    require(!moments.has_residual_stream() || rows == weights.rows,
            "objectives: weights has rows:", weights.rows,
            std::to_string(rows) + " (columns of the residual stream)");
    return detail::objectives_of_rows(moments, weights, 0, candidates);
}

/// The objective of one quantized matrix.
template <Element In, Real T, Backend<T> B, Grid<T> G>
Objective objective(const Moments<T, B>& moments, MatrixView<const In> weights,
                    const QuantizedMatrix<T, B, G>& quantized) {
    return objectives(moments, weights, {&quantized}).front();
}

}  // namespace residua
