#pragma once

#include <utility>

#include "residua/solver/factorization.hpp"

namespace residua::detail {

/// What the recurrence sums up of residuals that are known beforehand, a = alpha W, and of the residual stream,
///
///     (sum_i a_i M_ik)_k + alpha_h (D_h R^-T)_k,
///
/// and the weights that these sums amount to,
///
///     W* = W + (alpha W M + alpha_h D_h R^-T) R^-1 = W + (alpha W D + alpha_h D_h) H^-1.
///
/// Weights and sums are columns (in_features, rows), in the order of quantization.
template <Real T, Backend<T> B>
class ResidualSums {
  public:
    using Matrix = typename B::template Matrix<T>;

    ResidualSums() = default;

    /// Sums of the residual stream alone, if the moments have it: alpha is to be 0.
    ResidualSums(const Factorization<T, B>& factorization, double stream_alpha)
        : f_(&factorization), stream_alpha_(static_cast<T>(stream_alpha)) {}

    /// For `out_features` rows in all. M takes n^3 operations once and its product 2 m n^2, that of D and a
    /// solve 3 m n^2: the lesser is chosen, unless M is there. `factorization` must outlive this.
    ResidualSums(const Factorization<T, B>& factorization, double stream_alpha, Index out_features)
        : ResidualSums(factorization, stream_alpha) {
        if (f_->has_residuals() || out_features >= f_->in_features()) {
            residuals_ = f_->residuals();
        } else {
            cross_transposed_ = f_->cross_transposed();
        }
    }

    /// sums = alpha M' W' + alpha_h R^-1 D_h' for the output rows [first, first + columns.cols). *flag = 1 if
    /// D_h holds NaN or infinity.
    void sum(T alpha, MatrixView<const T> columns, Index first, Code* flag, MatrixView<T> sums) const {
        B& backend = f_->backend();
        const MatrixView<const T> stream = f_->stream_cross();
        const bool adds_stream = stream.data && stream_alpha_ > T(0);
        if (adds_stream) {
            backend.load_columns(stream.row_range(first, columns.cols), f_->order(), sums, flag);
            if (residuals_.data) backend.solve_upper(f_->factor(), sums);
        }
        MatrixView<const T> left = residuals_.data ? residuals_ : cross_transposed_.view();
        if (alpha == T(0)) left = f_->factor().block(0, 0, f_->in_features(), 0);
        backend.multiply(alpha, Transpose::No, left, columns.row_range(0, left.cols),
                         adds_stream ? stream_alpha_ : T(0), sums);
        if (!residuals_.data) backend.solve_upper(f_->factor(), sums);
    }

    /// W* in place of the sums.
    void complete(MatrixView<const T> columns, MatrixView<T> sums) const {
        B& backend = f_->backend();
        backend.solve_upper_transposed(f_->factor(), sums);
        backend.add(columns, sums);
    }

  private:
    const Factorization<T, B>* f_ = nullptr;
    T stream_alpha_ = 0;
    MatrixView<const T> residuals_;  // M', or
    Matrix cross_transposed_;        // D', or neither
};

}  // namespace residua::detail
