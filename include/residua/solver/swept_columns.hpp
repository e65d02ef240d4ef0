#pragma once

#include <utility>

#include "residua/backends/backend.hpp"

namespace residua::detail {

/// The columns of a slab that the recurrence has swept, a right factor of products that grows panel by panel. A
/// backend that must prepare such a factor does that once for each column instead of once for each product.
template <Real T, Backend<T> B>
class SweptColumns {
    static constexpr bool prepares = requires(B & b) { b.template right_factor<T>(Index(), Index()); };

  public:
    SweptColumns() = default;

    /// For slabs of up to (in_features, rows) columns.
    SweptColumns(B& backend, Index in_features, Index rows) : backend_(&backend) {
        if constexpr (prepares) factor_ = backend.template right_factor<T>(in_features, rows);
    }

    /// A slab of (in_features, rows), none of which is swept.
    void start(MatrixView<const T> columns) {
        columns_ = columns;
        count_ = 0;
    }

    /// Columns before `end` are swept.
    void extend(Index end) {
        if constexpr (prepares) backend_->extend(factor_, count_, columns_.row_range(count_, end - count_));
        count_ = end;
    }

    /// C = beta C + op(A) X, X the swept columns.
    void multiply(Transpose transpose, MatrixView<const T> a, T beta, MatrixView<T> c) const {
        const MatrixView<const T> x = columns_.row_range(0, count_);
        if constexpr (prepares) {
            backend_->multiply(T(1), transpose, a, factor_, x, beta, c);
        } else {
            backend_->multiply(T(1), transpose, a, x, beta, c);
        }
    }

  private:
    struct Nothing {};
    template <class Backend>
    static auto factor_of() {
        if constexpr (prepares) {
            return decltype(std::declval<Backend&>().template right_factor<T>(Index(), Index()))();
        } else {
            return Nothing();
        }
    }

    B* backend_ = nullptr;
    MatrixView<const T> columns_;
    Index count_ = 0;
    decltype(factor_of<B>()) factor_;
};

}  // namespace residua::detail
