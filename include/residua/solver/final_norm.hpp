#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "residua/core/report.hpp"
#include "residua/solver/factored_gram.hpp"
#include "residua/solver/moments.hpp"

namespace residua {

/// What final_norm_gains() found.
template <Real T>
struct NormGains {
    Status status = Status::Success;
    double damping = 0;          ///< the lambda that was used
    std::vector<T> values = {};  ///< (in_features), to multiply the norm's weights by; empty without success

    explicit operator bool() const { return status == Status::Success; }
};

namespace detail {

/// Sums of the columns of `matrix` (rows, n). *flag = 1 if it holds NaN or infinity.
template <Real T, class B, Element In>
std::vector<T> column_sums(B& backend, MatrixView<const In> matrix, Code* flag) {
    const Index n = matrix.cols;
    const Index slab = std::min(matrix.rows, backend.slab_rows(n, matrix.rows));
    const std::vector<Index> natural = natural_order(n);
    auto columns = backend.template workspace<T>(n, slab);
    auto ones = backend.template workspace<T>(slab, 1);
    auto sums = backend.template workspace<T>(n, 1);
    backend.write(std::vector<T>(static_cast<std::size_t>(slab), T(1)), ones.view());
    backend.set_zero(sums.view());
    for (Index first = 0; first < matrix.rows; first += slab) {
        const Index rows = std::min(slab, matrix.rows - first);
        const MatrixView<T> part = columns.view().block(0, 0, n, rows);
        backend.load_columns(matrix.row_range(first, rows), natural, part, flag);
        backend.multiply(T(1), Transpose::No, read_only(part), read_only(ones.view().row_range(0, rows)),
                         T(1), sums.view());
    }
    return backend.read(sums.view());
}

/// A = (L' L) o H and diag(L' L D), on the host: L' L = `products` - sums sums' / rows, of the `rows` rows of an
/// output layer that is not centred.
template <Real T>
struct NormQuadratic {
    std::vector<T> matrix;  ///< H, then A
    std::vector<T> diagonal;
    std::vector<T> right;
    double trace = 0;

    NormQuadratic(std::vector<T> gram, const std::vector<T>& cross, const std::vector<T>& products,
                  const std::vector<T>& sums, Index rows)
        : matrix(std::move(gram)) {
        const std::size_t n = sums.size();
        for (std::size_t i = 0; i < n; ++i) {
            double sum = 0;
            for (std::size_t j = 0; j < n; ++j) {
                const double product =
                    double(products[i * n + j]) - double(sums[i]) * double(sums[j]) / double(rows);
                sum += product * double(cross[j * n + i]);
                T& element = matrix[i * n + j];
                element = static_cast<T>(product * double(element));
            }
            right.push_back(static_cast<T>(sum));
            diagonal.push_back(matrix[i * n + i]);
            trace += double(diagonal.back());
        }
    }

    bool is_finite() const {
        const auto finite = [](T v) { return detail::is_finite(v); };
        return std::all_of(diagonal.begin(), diagonal.end(), finite) &&
               std::all_of(right.begin(), right.end(), finite);
    }
};

}  // namespace detail

/// Gains g for the weights of a model's last norm, w_norm <- w_norm o g, which cost no bits. With x the output of
/// that norm in the quantized model, x_fp the same in the full-precision one, both with the original w_norm, and
/// L the output layer less its mean over the vocabulary, to which probabilities are blind, g minimizes
///
///     sum_t |L (x_fp_t - g o x_t)|^2 + lambda mean(diag A) |g - 1|^2:
///     g = 1 + (A + lambda mean(diag A) I)^-1 diag(L' L D),   A = (L' L) o H,
///
/// `o` the product of elements. Inputs that do not deviate have g = 1.
///
/// \param moments  H and D of the norm's outputs, in_features of them
/// \param head     the output layer (vocabulary, in_features), not centred, wherever the backend takes weights
///
/// Costs vocabulary n^2 and n^3/3 operations, and 3 n^2 elements of host memory, whatever the backend. Throws
/// std::invalid_argument where shapes do not match, no token was accumulated, or there are no reference inputs.
template <class In, Real T, Backend<T> B>
requires Element<std::remove_const_t<In>>
[[nodiscard]] NormGains<T> final_norm_gains(const Moments<T, B>& moments, MatrixView<In> head,
                                            const Damping& damping = {}) {
    const Index n = moments.in_features();
    detail::require_matrix("final_norm_gains: head", read_only(head), n);
    require(head.rows >= 1, "final_norm_gains: head has rows:", head.rows, "at least 1");
    require(moments.tokens() >= 1, "final_norm_gains: accumulated tokens:", moments.tokens(), "at least 1");
    require(moments.has_reference(), "final_norm_gains: the moments' reference inputs are", "absent",
            "given: call accumulate(x, x_fp)");
    damping.validate();

    B& backend = moments.backend();
    NormGains<T> gains{.damping = damping.initial};
    auto flag = backend.template allocate<Code>(1, 1);
    backend.set_zero(flag.view());
    const std::vector<T> sums = detail::column_sums<T>(backend, read_only(head), flag.view().data);
    if (backend.read(flag.view())[0] != 0) {
        gains.status = Status::NonFiniteWeights;
        return gains;
    }
    Moments<T, B> outputs(backend, n);  // rows of the output layer in the place of tokens: L' L
    outputs.accumulate(head);
    detail::NormQuadratic<T> quadratic(backend.read(moments.gram()), backend.read(moments.cross()),
                                       backend.read(outputs.gram()), sums, head.rows);
    if (!quadratic.is_finite()) {
        gains.status = Status::NonFiniteMoments;
        return gains;
    }

    auto matrix = backend.template workspace<T>(n, n);
    auto solution = backend.template workspace<T>(n, 1);
    backend.write(quadratic.matrix, matrix.view());
    backend.write(quadratic.right, solution.view());
    FactoredGram<T, B> factored(std::move(matrix), std::move(quadratic.diagonal));
    const double mean = quadratic.trace > 0 ? quadratic.trace / double(n) : 1.0;
    for (int retries = 0; !factored.factor(backend, static_cast<T>(gains.damping * mean)); ++retries) {
        if (retries == damping.max_retries) {
            gains.status = Status::NotPositiveDefinite;
            return gains;
        }
        gains.damping = damping.next(gains.damping);
    }
    backend.solve_upper(factored.factor(), solution.view());
    backend.solve_upper_transposed(factored.factor(), solution.view());
    gains.values = backend.read(solution.view());
    for (T& g : gains.values) g += T(1);
    return gains;
}

}  // namespace residua
