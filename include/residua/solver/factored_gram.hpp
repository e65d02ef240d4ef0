#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "residua/backends/backend.hpp"

namespace residua {

/// A = R R', R upper triangular, in place of the upper triangle of A; false where A is not positive definite.
template <Real T>
using CholeskyStep = std::function<bool(MatrixView<T>)>;

/// A positive definite H (n, n) and its factor, H = R R' with R upper triangular, in the memory of one of
/// them: R in the upper triangle, H strictly below the diagonal, and the diagonal of H beside it.
template <Real T, Backend<T> B>
class FactoredGram {
  public:
    using Matrix = typename B::template Matrix<T>;

    FactoredGram() = default;

    /// Takes a symmetric matrix, both triangles of which are valid, in place of its diagonal `diagonal`.
    FactoredGram(Matrix gram, std::vector<T> diagonal)
        : matrix_(std::move(gram)), undamped_(std::move(diagonal)) {}

    /// H + lambda I = R R'. May be called again, with another lambda; false if H + lambda I is not positive
    /// definite. By `cholesky`, or by the backend where that is empty.
    bool factor(B& backend, T lambda, const CholeskyStep<T>& cholesky = {}) {
        if (!diagonal_.empty()) backend.mirror_lower(matrix_.view());
        diagonal_ = undamped_;
        lambda_ = lambda;
        for (T& d : diagonal_) d += lambda;
        backend.set_diagonal(matrix_.view(), diagonal_);
        return cholesky ? cholesky(matrix_.view()) : backend.cholesky_upper(matrix_.view());
    }

    /// R: the upper triangle is to be read.
    MatrixView<const T> factor() const { return matrix_.view(); }

    /// H + lambda I: the strict lower triangle is to be read.
    MatrixView<const T> gram() const { return matrix_.view(); }

    /// The diagonal of H + lambda I.
    const std::vector<T>& diagonal() const { return diagonal_; }

    /// The lambda of the last factor(lambda).
    T lambda() const { return lambda_; }

  private:
    Matrix matrix_;
    T lambda_ = 0;
    std::vector<T> undamped_;
    std::vector<T> diagonal_;
};

}  // namespace residua
