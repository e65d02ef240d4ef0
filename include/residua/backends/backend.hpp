#pragma once

#include <concepts>
#include <span>
#include <vector>

#include "residua/backends/refine_block.hpp"
#include "residua/backends/sweep_block.hpp"
#include "residua/grids/grid.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/methods/method.hpp"

namespace residua {

/// Whether a product reads its left factor as stored or transposed.
enum class Transpose { No, Yes };

namespace detail {

/// The simplest method, to state what a backend's sweep must accept.
struct ProbeMethod {
    static constexpr const char* name = "probe";
    static constexpr Residuals residuals = Residuals::None;
    template <Real T>
    RESIDUA_HOST_DEVICE T fed_back(T q, T, T) const {
        return q;
    }
    void validate() const {}
};

}  // namespace detail

/// The operations that the solvers are written in. A backend decides where memory lies and how work is
/// divided; every result is that of the equation beside the operation, up to rounding.
///
/// Memory
///   1. B::Matrix<U> owns a row-major (rows, cols) matrix, movable; b.allocate<U>(rows, cols) leaves its
///      contents unspecified. Views passed to operations point into such matrices unless said otherwise.
///   2. Operations may run asynchronously but behave as if in order. b.read(view) -> std::vector waits for
///      and copies a row-major matrix to the host; b.write(values, view) copies host values in.
///   3. b.timestamp() marks a point in that order; b.seconds(from, to) is the time between two marks.
///   4. b.slab_rows(in_features, out_features) > 0 is how many output rows to process together.
///
/// Moments (x and x_fp: (tokens, in_features), any Element, wherever the backend accepts activations;
/// weights: empty, or one host value per token; tokens of weight 0 are not read)
///   5. b.accumulate_gram(x, weights, H): upper triangle of H += sum_t w_t x_t x_t'.
///   6. b.accumulate_cross(x, x_fp, weights, D): D += sum_t w_t (x_fp_t - x_t) x_t'.
///   7. b.add(A, C): C += A.  b.subtract(A, C): C -= A.  b.mirror(H): copies the upper triangle to the lower,
///      b.mirror_lower(H) the lower to the upper.
///
/// Factorization
///   8. b.diagonal(A) -> std::vector<T>.
///   9. b.permute(A, order, C): C_ij = A_{order_i order_j}.
///      b.permute_transposed(A, order, C): C_ij = A_{order_j order_i}.
///      b.clear_row / b.clear_column(A, i).  b.transpose_in_place(A), A square.
///  10. b.set_diagonal(A, host values).
///  11. b.cholesky_upper(A) -> bool: A = R R', R upper triangular, in place; the strict lower triangle is
///      neither read nor written. False if A is not positive definite; its upper triangle is then
///      unspecified.
///
/// Products
///  12. b.multiply(alpha, Transpose, A, X, beta, C): C = beta C + alpha op(A) X; beta = 0 does not read C.
///  13. b.solve_upper(R, X): X <- R^-1 X.  b.solve_upper_transposed(R, X): X <- R^-T X.
///  14. b.dot(A, C) -> double: sum_ij A_ij C_ij.  b.copy(A, C): C = A.  b.set_zero(C): C = 0.
///
/// Columns (one column of the layer per row, see SweepBlock)
///  15. b.load_columns(W (rows, in_features), order, C, flag): C_kr = W_{r order_k}; *flag = 1 if W holds NaN
///      or infinity.  b.store_columns(C, order, Q): Q_{r order_k} = C_kr.
///      b.transpose(A, C): C = A', of T and of Code.
///  16. b.fit(grid, C, members, scales, zeros): fits the grid of each group to the columns members[group].
///  17. b.round(grid, C, group_of, scales, zeros, codes): nearest grid points.
///      b.subtract_decoded(grid, codes, group_of, scales, zeros, C): C -= decode(codes).
///  18. b.sweep(method, grid, block): the recurrence of methods/method.hpp for one SweepBlock, its grids
///      included.
///
/// Refinement (columns as above)
///  19. b.refine(grid, block): one pass over a RefineBlock of at most 128 columns.
///  20. b.refit(grid, group): the scale of one RefineGroup, for a RefittableGrid.
///  21. b.add_row_dots(A, C, sums): sums_0r += sum_k A_kr C_kr, of doubles.
///  22. Optional, else a loop of products: b.add_block_products(A, width, X, C): C_B += A_B X_B for each
///      block B of `width` rows of all three, A_B in the first `width` columns of A.
template <class B, class T>
concept Backend = Real<T> &&
    requires(B& b, MatrixView<T> a, MatrixView<const T> c, MatrixView<Code> codes,
             std::span<const float> weights, std::span<const Index> order,
             std::span<const std::vector<Index>> members, std::vector<T> values, Code* flag,
             const IntegerGrid& grid, const SweepBlock<T>& block, const RefineBlock<T>& refine,
             const RefineGroup<T>& group, MatrixView<double> sums) {
    { b.template allocate<T>(Index(), Index()).view() } -> std::same_as<MatrixView<T>>;
    { b.template allocate<Code>(Index(), Index()).view() } -> std::same_as<MatrixView<Code>>;
    { b.read(c) } -> std::same_as<std::vector<T>>;
    b.write(values, a);
    { b.seconds(b.timestamp(), b.timestamp()) } -> std::same_as<double>;
    { b.slab_rows(Index(), Index()) } -> std::same_as<Index>;
    b.accumulate_gram(c, weights, a);
    b.accumulate_cross(c, c, weights, a);
    b.add(c, a);
    b.subtract(c, a);
    b.mirror(a);
    { b.diagonal(c) } -> std::same_as<std::vector<T>>;
    b.permute(c, order, a);
    b.permute_transposed(c, order, a);
    b.clear_row(a, Index());
    b.clear_column(a, Index());
    b.set_diagonal(a, values);
    { b.cholesky_upper(a) } -> std::same_as<bool>;
    b.multiply(T(), Transpose::Yes, c, c, T(), a);
    b.solve_upper(c, a);
    b.solve_upper_transposed(c, a);
    { b.dot(c, c) } -> std::same_as<double>;
    b.copy(c, a);
    b.set_zero(a);
    b.load_columns(c, order, a, flag);
    b.store_columns(MatrixView<const Code>(codes), order, codes);
    b.transpose(c, a);
    b.transpose(MatrixView<const Code>(codes), codes);
    b.fit(grid, c, members, a, a);
    b.round(grid, c, order, c, c, codes);
    b.subtract_decoded(grid, codes, order, c, c, a);
    b.sweep(detail::ProbeMethod(), grid, block);
    b.refine(grid, refine);
    b.refit(grid, group);
    b.add_row_dots(c, c, sums);
};

}  // namespace residua
