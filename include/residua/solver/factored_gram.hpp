#pragma once

#include <functional>
#include <optional>
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
    /// definite. Where the backend has a fast factorization that fails, its ordinary one has the last word; unless
    /// it is empty, `cholesky` takes the place of both.
    bool factor(B& backend, T lambda, const CholeskyStep<T>& cholesky = {}) {
        if (cholesky) {
            damp(backend, lambda);
            return cholesky(matrix_.view());
        }
        if constexpr (requires { backend.fast_cholesky_upper(matrix_.view()); }) {
            damp(backend, lambda);
            const std::optional<bool> done = backend.fast_cholesky_upper(matrix_.view());
            is_fast_ = done.value_or(false);
            if (is_fast_) return true;
            if (!done) return backend.cholesky_upper(matrix_.view());
        }
        damp(backend, lambda);
        return backend.cholesky_upper(matrix_.view());
    }

    /// Whether R is of the backend's fast factorization.
    bool is_fast() const { return is_fast_; }

    /// R: the upper triangle is to be read.
    MatrixView<const T> factor() const { return matrix_.view(); }

    /// H + lambda I: the strict lower triangle is to be read.
    MatrixView<const T> gram() const { return matrix_.view(); }

    /// The diagonal of H + lambda I.
    const std::vector<T>& diagonal() const { return diagonal_; }

    /// The lambda of the last factor(lambda).
    T lambda() const { return lambda_; }

  private:
    /// H + lambda I in the upper triangle, from the lower one if a factorization has been there.
    void damp(B& backend, T lambda) {
        if (!diagonal_.empty()) backend.mirror_lower(matrix_.view());
        diagonal_ = undamped_;
        lambda_ = lambda;
        for (T& d : diagonal_) d += lambda;
        backend.set_diagonal(matrix_.view(), diagonal_);
    }

    Matrix matrix_;
    T lambda_ = 0;
    std::vector<T> undamped_;
    std::vector<T> diagonal_;
    bool is_fast_ = false;
};

}  // namespace residua
