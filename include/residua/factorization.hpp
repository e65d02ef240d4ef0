#pragma once

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "residua/backend/backend.hpp"
#include "residua/core/report.hpp"

namespace residua {

/// What a factorization depends on besides the moments.
struct FactorizationKey {
    Ordering ordering = Ordering::Natural;
    Index group_size = 0;  ///< 0 unless the ordering is GroupAware
    Damping damping;

    explicit FactorizationKey(const SolverOptions& options)
        : ordering(options.ordering),
          group_size(options.ordering == Ordering::GroupAware ? options.group_size : 0),
          damping(options.damping) {}

    friend bool operator==(const FactorizationKey&, const FactorizationKey&) = default;
};

/// H, damped and with its columns in the order of quantization, as R R' with R upper triangular; and what the
/// methods derive from R and D, each computed when it is first asked for and kept.
///
/// Columns with H_jj = 0 are dead: their diagonal becomes mean(diag H), in which they count as zeros, and D
/// loses their rows and columns. That keeps them apart from all others, whatever the scale of the inputs.
///
/// Costs n^3/3 operations for R, 2/3 n^3 for the projection, 2 n^3 for the shift.
template <Real T, Backend<T> B>
class Factorization {
  public:
    using Matrix = typename B::template Matrix<T>;

    /// Reads `gram` and, unless it is empty, `cross`: (n, n) moments, both triangles of `gram` valid. `cross`
    /// must outlive this.
    Factorization(B& backend, MatrixView<const T> gram, MatrixView<const T> cross,
                  const FactorizationKey& key)
        : backend_(backend), cross_(cross), n_(gram.rows), status_(factor(gram, key)) {}

    /// Takes the moments' memory for its own results: R replaces H, what is derived from D replaces D. One n
    /// x n matrix more is needed for a moment unless the ordering is Natural. Only one of projection(),
    /// shift() and cross_transposed() can be asked for.
    Factorization(B& backend, Matrix gram, Matrix cross, const FactorizationKey& key)
        : backend_(backend),
          cross_(std::as_const(cross).view()),
          n_(gram.rows()),
          factor_(std::move(gram)),
          consumed_cross_(std::move(cross)),
          status_(factor(std::as_const(factor_).view(), key)) {}

    Status status() const { return status_; }
    double damping() const { return damping_; }
    int retries() const { return retries_; }

    /// order()[p] is the original column that is quantized as the p-th.
    std::span<const Index> order() const { return order_; }
    std::span<const Index> dead_columns() const { return dead_; }
    std::span<const Index> dead_positions() const { return dead_positions_; }

    B& backend() const { return backend_; }

    /// R in the order of quantization, in the upper triangle; the strict lower triangle is that of H.
    MatrixView<const T> factor() const { return factor_.view(); }

    /// The diagonal of the damped H in the order of quantization; with the lower triangle of factor() all of
    /// H.
    const std::vector<T>& gram_diagonal() const { return gram_diagonal_; }

    /// P' with P = M R^-1, M = triu(D R^-T, strict), in the order of quantization.
    MatrixView<const T> projection() const {
        const std::lock_guard lock(mutex_);
        if (projection_.rows() == 0) compute_projection();
        return std::as_const(projection_).view();
    }

    bool has_shift() const {
        const std::lock_guard lock(mutex_);
        return shift_.rows() != 0;
    }

    /// (D H^-1)' = H^-1 D' in the order of quantization.
    MatrixView<const T> shift() const {
        const std::lock_guard lock(mutex_);
        if (shift_.rows() == 0) {
            shift_ = cross_transposed();
            backend_.solve_upper(factor(), shift_.view());
            backend_.solve_upper_transposed(factor(), shift_.view());
        }
        return std::as_const(shift_).view();
    }

    /// D' in the order of quantization, rows and columns of dead inputs cleared.
    Matrix cross_transposed() const {
        Matrix d;
        if (consumed_cross_.rows() != 0 && is_natural()) {
            d = std::exchange(consumed_cross_, {});
            backend_.transpose_in_place(d.view());
        } else {
            d = backend_.template workspace<T>(n_, n_);
            backend_.permute_transposed(cross_, order(), d.view());
            consumed_cross_ = {};
        }
        for (const Index p : dead_positions_) {
            backend_.clear_row(d.view(), p);
            backend_.clear_column(d.view(), p);
        }
        return d;
    }

  private:
    static constexpr Index block = 256;

    Status factor(MatrixView<const T> gram, const FactorizationKey& key) {
        std::vector<T> diagonal = backend_.diagonal(gram);
        if (!all_finite(diagonal)) return Status::NonFiniteMoments;
        if (cross_.data && !all_finite(backend_.diagonal(cross_))) return Status::NonFiniteMoments;

        order_ = column_order(std::span<const T>(diagonal), key.ordering, key.group_size);
        double sum = 0;
        for (Index p = 0; p < n_; ++p) {
            const Index column = order_[static_cast<std::size_t>(p)];
            const T h = diagonal[static_cast<std::size_t>(column)];
            sum += static_cast<double>(h);
            if (h > T(0)) continue;
            dead_.push_back(column);
            dead_positions_.push_back(p);
        }
        std::sort(dead_.begin(), dead_.end());
        const double mean = sum > 0 ? sum / static_cast<double>(n_) : 1.0;
        for (const Index j : dead_) diagonal[static_cast<std::size_t>(j)] = static_cast<T>(mean);
        std::vector<T> permuted(diagonal.size());

        for (std::size_t p = 0; p < diagonal.size(); ++p) {
            permuted[p] = diagonal[static_cast<std::size_t>(order_[p])];
        }
        if (factor_.rows() == 0 || !is_natural()) {
            Matrix ordered = backend_.template workspace<T>(n_, n_);
            backend_.permute(gram, order(), ordered.view());
            factor_ = std::move(ordered);
        }
        damping_ = key.damping.initial;
        for (retries_ = 0; !try_factor(permuted, damping_ * mean); ++retries_) {
            if (retries_ == key.damping.max_retries) return Status::NotPositiveDefinite;
            damping_ = key.damping.next(damping_);
            backend_.mirror_lower(factor_.view());
        }
        return Status::Success;
    }

    bool is_natural() const { return std::is_sorted(order_.begin(), order_.end()); }

    static bool all_finite(const std::vector<T>& values) {
        return std::all_of(values.begin(), values.end(), [](T v) { return is_finite(v); });
    }

    /// The lower triangle keeps H for another try.
    bool try_factor(std::vector<T> diagonal, double lambda) {
        for (T& d : diagonal) d += static_cast<T>(lambda);
        backend_.set_diagonal(factor_.view(), diagonal);
        gram_diagonal_ = std::move(diagonal);
        return backend_.cholesky_upper(factor_.view());
    }

    /// Both solves keep to the lower triangle of their transposes: n^3/3 operations each instead of n^3.
    void compute_projection() const {
        Matrix result = cross_transposed();
        const MatrixView<T> p = result.view();
        const MatrixView<const T> r = factor();

        // M' = tril(R^-1 D', strict): row block J needs the columns before its end only
        for (Index end = n_, begin = 0; end > 0; end = begin) {
            begin = (end - 1) / block * block;
            const Index height = end - begin;
            const MatrixView<T> rows = p.block(begin, 0, height, end);
            backend_.multiply(T(-1), Transpose::No, r.block(begin, end, height, n_ - end),
                              MatrixView<const T>(p.block(end, 0, n_ - end, end)), T(1), rows);
            backend_.solve_upper(r.block(begin, begin, height, height), rows);
        }
        backend_.keep_strict_lower(p);

        // P' = R^-T M': row block J is final once those above it have been subtracted, then goes to all below
        for (Index begin = 0, end = 0; begin < n_; begin = end) {
            end = std::min(n_, begin + block);
            const Index height = end - begin;
            const MatrixView<T> rows = p.block(begin, 0, height, end);
            backend_.solve_upper_transposed(r.block(begin, begin, height, height), rows);
            backend_.multiply(T(-1), Transpose::Yes, r.block(begin, end, height, n_ - end),
                              MatrixView<const T>(rows), T(1), p.block(end, 0, n_ - end, end));
        }
        projection_ = std::move(result);
    }

    B& backend_;
    MatrixView<const T> cross_;
    Index n_;
    double damping_ = 0;
    int retries_ = 0;
    std::vector<Index> dead_;
    std::vector<Index> dead_positions_;
    std::vector<Index> order_;
    std::vector<T> gram_diagonal_;
    Matrix factor_;
    mutable Matrix consumed_cross_;
    Status status_;  // initialized last: factor() fills the members above

    mutable std::mutex mutex_;
    mutable Matrix projection_;
    mutable Matrix shift_;
};

}  // namespace residua
