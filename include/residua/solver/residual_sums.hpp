#pragma once

#include <utility>

#include "residua/solver/factorization.hpp"

namespace residua::detail {

/// (sum_i a_i M_ik)_k where all residuals are known, a = alpha W; and the weights that they amount to,
/// W* = W + alpha W M R^-1 = W + alpha W D H^-1.
///
/// Weights and sums are columns (in_features, rows), in the order of quantization.
template <Real T, Backend<T> B>
class ResidualSums {
  public:
    using Matrix = typename B::template Matrix<T>;

    ResidualSums() = default;

    /// For `out_features` rows in all. M takes n^3 operations once and its product 2 m n^2, that of D and a
    /// solve 3 m n^2: the lesser is chosen, unless M is there. `factorization` must outlive this.
    ResidualSums(const Factorization<T, B>& factorization, Index out_features) : f_(&factorization) {
        if (f_->has_residuals() || out_features >= f_->in_features()) {
            residuals_ = f_->residuals();
        } else {
            cross_transposed_ = f_->cross_transposed();
        }
    }

    /// sums = alpha M' W'
    void sum(T alpha, MatrixView<const T> columns, MatrixView<T> sums) const {
        B& backend = f_->backend();
        if (residuals_.data) {
            backend.multiply(alpha, Transpose::No, residuals_, columns, T(0), sums);
        } else {
            backend.multiply(alpha, Transpose::No, cross_transposed_.view(), columns, T(0), sums);
            backend.solve_upper(f_->factor(), sums);
        }
    }

    /// W* in place of the sums.
    void complete(MatrixView<const T> columns, MatrixView<T> sums) const {
        B& backend = f_->backend();
        backend.solve_upper_transposed(f_->factor(), sums);
        backend.add(columns, sums);
    }

  private:
    const Factorization<T, B>* f_ = nullptr;
    MatrixView<const T> residuals_;  // M', or
    Matrix cross_transposed_;        // D'
};

}  // namespace residua::detail
