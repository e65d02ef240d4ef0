#pragma once

#include <concepts>
#include <span>
#include <utility>
#include <vector>

#include "residua/backends/refine_block.hpp"
#include "residua/backends/sweep_block.hpp"
#include "residua/grids/grid.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/grids/k_quant_grid.hpp"
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
///   1. B::Matrix<U> owns a row-major (rows, cols) matrix, for U = T, double and Code: movable, with rows(),
///      cols() and view(). b.allocate<U>(rows, cols) leaves its contents unspecified; so does
///      b.workspace<U>(rows, cols), whose rows may lie farther apart where that is faster. Views passed to
///      operations point into such matrices unless said otherwise.
///   2. Operations may run asynchronously but behave as if in order. b.read(view) -> std::vector waits for and
///      copies a row-major matrix to the host; b.write(values, view) copies host values in. Of T, double and
///      Code.
///   3. b.timestamp() -> B::Timestamp marks a point in that order; b.seconds(from, to) is the time between two.
///   4. b.slab_rows(in_features, out_features) > 0 is how many output rows to process together.
/// Moments (x: (tokens, n), y and y_fp: (tokens, m), any Element, wherever the backend accepts activations;
/// weights: empty, or one host value per token; tokens of weight 0 are not read)
///   5. b.accumulate_gram(x, weights, H): upper triangle of H += sum_t w_t x_t x_t'.
///   6. b.accumulate_cross(y, y_fp, x, weights, D): D += sum_t w_t (y_fp_t - y_t) x_t', (m, n). y may be x.
///   7. b.add(A, C): C += A.  b.subtract(A, C): C -= A.
///      b.mirror(H): copies the upper triangle to the lower.  b.mirror_lower(H): the lower to the upper.
/// Factorization
///   8. b.diagonal(A) -> std::vector<T>.  b.set_diagonal(A, host values).
///   9. b.permute(A, order, C): C_ij = A_{order_i order_j}.
///      b.permute_transposed(A, order, C): C_ij = A_{order_j order_i}.
///      b.transpose_in_place(A), A square.  b.clear_row(A, i).  b.clear_column(A, j).
///  10. b.cholesky_upper(A) -> bool: A = R R', R upper triangular, in place; the strict lower triangle is
///      neither read nor written. False if A is not positive definite (its upper triangle is then
///      unspecified).
/// Products
///  11. b.multiply(alpha, Transpose, A, X, beta, C): C = beta C + alpha op(A) X; beta = 0 does not read C.
///  12. b.solve_upper(R, X): X <- R^-1 X.  b.solve_upper_transposed(R, X): X <- R^-T X.
///  13. b.dot(A, C) -> double: sum_ij A_ij C_ij.  b.copy(A, C).  b.set_zero(C).
/// Columns (one column of the layer per row, see SweepBlock)
///  14. b.load_columns(W, order, C, flag), W (rows, in_features) of any Element, wherever the backend accepts
///      weights: C_kr = W_{r order_k}; *flag = 1 if W holds NaN or infinity, unless `flag` is null.
///      The same of Code.  b.store_columns(C, order, Q): Q_{r order_k} = C_kr.  b.transpose(A, C): C = A'.
///      These two of T and Code.
///  15. b.fit(grid, C, weights, members, scales, zeros): fits the grid of each group to the columns
///      members[group]; `weights`, of the columns, are (1, columns), or empty for equal ones. Families of a
///      TwoLevelGrid together; b.fit(..., zeros, shared) leaves what they share in `shared` (2 families, rows).
///  16. b.round(grid, C, group_of, scales, zeros, codes): nearest grid points.
///      b.subtract_decoded(grid, codes, group_of, scales, zeros, C): C -= decode(codes).
///  17. b.sweep(method, grid, block): the recurrence of methods/method.hpp for one SweepBlock, grids included.
/// Refinement (columns as above)
///  18. b.refine(grid, block): one pass over a RefineBlock of at most 128 columns, or of b.refine_columns<T>() where
///      there is such a function.
///  19. b.refit(grid, group): the scale of one RefineGroup, for a RefittableGrid. For a TwoLevelGrid
///      b.share(grid, family): what a RefineFamily shares, and its slopes; and
///      b.refit_shared(grid, family, number, group): one of these numbers as the scale of `group`, with the
///      parameters of the family following.
///  20. b.add_row_dots(A, C, sums): sums_0r += sum_k A_kr C_kr, of doubles.
/// Optional
///  21. b.add_block_products(A, width, X, C), else a loop of products: C_B += A_B X_B for each block B of
///      `width` rows of all three, A_B in the first `width` columns of A.
///  22. b.fast_cholesky_upper(A) -> std::optional<bool>, else 10. alone: 10. with larger rounding errors; nothing
///      where that is not faster, and A is then as it was.
///  23. b.solve_upper_below(R, X) -> bool, else by 11. and 12.: the lower triangle of X <- R^-1 X, X square; what is
///      above it is unspecified then. False where that is not faster, and X is then as it was.
///  24. b.product_arithmetic<T>(out_features, in_features) -> Arithmetic, else Element: of the largest products of a
///      solve, and of 22.
///  25. b.right_factor<T>(rows, cols) -> F, for a matrix X (rows, cols) whose rows become known one after the other,
///      b.extend(F, first, x): those from `first` on are x; b.multiply(alpha, Transpose, A, F, x, beta, C): 11. by the
///      rows x that are known. Else 11. alone.
///  26. b.multiply_bytes(X, C), b.solve_upper_bytes(X), b.cholesky_upper_bytes(A), b.sweep_bytes<M>(grid, block),
///      b.right_factor_bytes<T>(rows, cols) and b.multiply_bytes(whether F is not empty, x, C), else 0: memory that
///      these operations take for themselves, see workspace_bytes().
///  27. b.is_finite(A) -> bool, else by 11.: whether A holds neither NaN nor infinity.
template <class B, class T>
concept Backend = Real<T> &&
    requires(B& b, MatrixView<T> a, MatrixView<const T> c, MatrixView<Code> codes,
             MatrixView<const Code> const_codes, std::span<const float> weights, std::span<const Index> order,
             std::span<const std::vector<Index>> members, std::vector<T> values, Code* flag,
             const IntegerGrid& grid, const SweepBlock<T>& block, const RefineBlock<T>& refine,
             const RefineGroup<T>& group, const KQuantGrid<32>& two_level, const RefineFamily<T>& family,
             MatrixView<double> sums, std::vector<double> doubles, typename B::Timestamp timestamp,
             typename B::template Matrix<T> matrix) {
    requires std::movable<typename B::template Matrix<T>>;
    { matrix.rows() } -> std::same_as<Index>;
    { matrix.cols() } -> std::same_as<Index>;
    { matrix.view() } -> std::same_as<MatrixView<T>>;
    { std::as_const(matrix).view() } -> std::same_as<MatrixView<const T>>;
    { b.template allocate<T>(Index(), Index()) } -> std::same_as<typename B::template Matrix<T>>;
    { b.template allocate<double>(Index(), Index()) } -> std::same_as<typename B::template Matrix<double>>;
    { b.template allocate<Code>(Index(), Index()) } -> std::same_as<typename B::template Matrix<Code>>;
    { b.template workspace<T>(Index(), Index()) } -> std::same_as<typename B::template Matrix<T>>;
    { b.read(c) } -> std::same_as<std::vector<T>>;
    { b.read(sums) } -> std::same_as<std::vector<double>>;
    { b.read(codes) } -> std::same_as<std::vector<Code>>;
    b.write(values, a);
    b.write(doubles, sums);
    { b.timestamp() } -> std::same_as<typename B::Timestamp>;
    { b.seconds(timestamp, timestamp) } -> std::same_as<double>;
    { b.slab_rows(Index(), Index()) } -> std::same_as<Index>;
    b.accumulate_gram(c, weights, a);
    b.accumulate_cross(c, c, c, weights, a);
    b.add(c, a);
    b.subtract(c, a);
    b.mirror(a);
    b.mirror_lower(a);
    { b.diagonal(c) } -> std::same_as<std::vector<T>>;
    b.set_diagonal(a, values);
    b.permute(c, order, a);
    b.permute_transposed(c, order, a);
    b.transpose_in_place(a);
    b.clear_row(a, Index());
    b.clear_column(a, Index());
    { b.cholesky_upper(a) } -> std::same_as<bool>;
    b.multiply(T(), Transpose::Yes, c, c, T(), a);
    b.solve_upper(c, a);
    b.solve_upper_transposed(c, a);
    { b.dot(c, c) } -> std::same_as<double>;
    b.copy(c, a);
    b.set_zero(a);
    b.set_zero(codes);
    b.set_zero(sums);
    b.load_columns(c, order, a, flag);
    b.load_columns(const_codes, order, codes, flag);
    b.store_columns(c, order, a);
    b.store_columns(const_codes, order, codes);
    b.transpose(c, a);
    b.transpose(const_codes, codes);
    b.fit(grid, c, c, members, a, a);
    b.round(grid, c, order, c, c, codes);
    b.subtract_decoded(grid, const_codes, order, c, c, a);
    b.sweep(detail::ProbeMethod(), grid, block);
    b.refine(grid, refine);
    b.refit(grid, group);
    b.share(two_level, family);
    b.refit_shared(two_level, family, Number::Scale, group);
    b.add_row_dots(c, c, sums);
};

}  // namespace residua
