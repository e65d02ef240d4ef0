#pragma once

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "residua/core/report.hpp"
#include "residua/solver/factored_gram.hpp"

namespace residua {

/// What a factorization depends on besides the moments.
struct FactorizationKey {
    Ordering ordering = Ordering::Natural;
    Index group_size = 0;  ///< of what GroupAware keeps together; 0 for another ordering
    Damping damping;
    double max_dead_inputs = 0;

    /// `family`: groups that the grid takes together, see TwoLevelGrid.
    explicit FactorizationKey(const SolverOptions& options, Index family = 1)
        : ordering(options.ordering),
          group_size(options.ordering == Ordering::GroupAware ? options.group_size * family : 0),
          damping(options.damping),
          max_dead_inputs(options.max_dead_inputs) {}

    friend bool operator==(const FactorizationKey&, const FactorizationKey&) = default;
};

/// H, damped and with its columns in the order of quantization, as R R' with R upper triangular; and the
/// residual matrix M = D R^-T, computed when it is first asked for and kept.
///
/// Columns with H_jj = 0 are dead: their diagonal becomes mean(diag H), in which they count as zeros, and D
/// loses their rows and columns. That keeps them apart from all others, whatever the scale of the inputs.
///
/// Costs n^3/3 operations for R, n^3/3 for the strict upper triangle of M, n^3 for all of it.
template <Real T, Backend<T> B>
class Factorization {
  public:
    using Matrix = typename B::template Matrix<T>;

    /// Reads `gram` and, unless they are empty, `cross` and `stream_cross`: moments, both triangles of `gram`
    /// valid. The last two must outlive this. `cholesky`, if given, computes R in the place of the backend: another
    /// rank, which has the same moments, may have done so.
    Factorization(B& backend, MatrixView<const T> gram, MatrixView<const T> cross,
                  const FactorizationKey& key, MatrixView<const T> stream_cross = {},
                  const CholeskyStep<T>& cholesky = {})
        : backend_(backend),
          cross_(cross),
          stream_cross_(stream_cross),
          n_(gram.rows),
          status_(factor(gram, {}, key, cholesky)) {}

    /// Takes the moments' memory for its own results: R replaces H, M replaces D; D_h is kept. One n x n matrix more is
    /// needed for a moment unless the ordering is Natural. Only one of residuals_before(), residuals() and
    /// cross_transposed() can be asked for.
    Factorization(B& backend, Matrix gram, Matrix cross, const FactorizationKey& key,
                  Matrix stream_cross = {})
        : backend_(backend),
          cross_(std::as_const(cross).view()),
          stream_cross_(std::as_const(stream_cross).view()),
          n_(gram.rows()),
          consumed_cross_(std::move(cross)),
          consumed_stream_cross_(std::move(stream_cross)),
          status_(factor(std::as_const(gram).view(), std::move(gram), key, {})) {}

    Status status() const { return status_; }
    double damping() const { return damping_; }
    int retries() const { return retries_; }

    /// order()[p] is the original column that is quantized as the p-th.
    std::span<const Index> order() const { return order_; }
    std::span<const Index> dead_columns() const { return dead_; }
    std::span<const Index> dead_positions() const { return dead_positions_; }

    B& backend() const { return backend_; }
    Index in_features() const { return n_; }

    /// H with its factor R, in the order of quantization.
    const FactoredGram<T, B>& gram() const { return gram_; }

    /// R in the order of quantization: the upper triangle is to be read.
    MatrixView<const T> factor() const { return gram_.factor(); }

    /// D_h, as the moments have it: original columns, dead ones too; or an empty view.
    MatrixView<const T> stream_cross() const { return stream_cross_; }

    /// M' in the order of quantization: the strict lower triangle is to be read.
    MatrixView<const T> residuals_before() const {
        return residuals_before([&](MatrixView<T> m) { solve_lower_triangle(m); });
    }

    /// The same, by means other than a solve unless it is there: compute(D') makes it M'.
    template <class Compute>
    MatrixView<const T> residuals_before(Compute compute) const {
        return computed_once(residuals_before_, compute);
    }

    /// All of M' in the order of quantization.
    MatrixView<const T> residuals() const {
        return residuals([&](MatrixView<T> m) { backend_.solve_upper(factor(), m); });
    }

    /// The same, by means other than a solve unless it is there: compute(D') makes it M'.
    template <class Compute>
    MatrixView<const T> residuals(Compute compute) const {
        return computed_once(residuals_, compute);
    }

    /// Whether residuals() has been asked for, so that it costs nothing.
    bool has_residuals() const {
        const std::lock_guard lock(mutex_);
        return residuals_.rows() != 0;
    }

    /// The same of residuals_before().
    bool has_residuals_before() const {
        const std::lock_guard lock(mutex_);
        return residuals_before_.rows() != 0;
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
            // Where it was not consumed, several threads may come here: they must not write, not even nothing.
            if (consumed_cross_.rows() != 0) consumed_cross_ = {};
        }
        for (const Index p : dead_positions_) {
            backend_.clear_row(d.view(), p);
            backend_.clear_column(d.view(), p);
        }
        return d;
    }

  private:
    template <class Compute>
    MatrixView<const T> computed_once(Matrix& kept, Compute compute) const {
        const std::lock_guard lock(mutex_);
        if (kept.rows() == 0) {
            Matrix m = cross_transposed();
            compute(m.view());
            kept = std::move(m);
        }
        return std::as_const(kept).view();
    }

    Status factor(MatrixView<const T> gram, Matrix&& consumed, const FactorizationKey& key,
                  const CholeskyStep<T>& cholesky) {
        std::vector<T> diagonal = backend_.diagonal(gram);
        if (!all_finite(diagonal) || !rows_are_finite(gram)) return Status::NonFiniteMoments;
        if (cross_.data && !rows_are_finite(cross_)) return Status::NonFiniteMoments;

        order_ = detail::column_order(std::span<const T>(diagonal), key.ordering, key.group_size);
        double sum = 0;
        for (Index p = 0; p < n_; ++p) {
            const Index column = order_[static_cast<std::size_t>(p)];
            const T h = diagonal[static_cast<std::size_t>(column)];
            sum += static_cast<double>(h);
            if (h < T(0)) return Status::NotPositiveDefinite;
            if (h > T(0)) continue;
            dead_.push_back(column);
            dead_positions_.push_back(p);
        }
        std::sort(dead_.begin(), dead_.end());
        const Index dead = static_cast<Index>(dead_.size());
        if (dead > 0 && key.max_dead_inputs < 1 &&
            (dead == n_ || double(dead) > key.max_dead_inputs * double(n_)))
            return Status::DeadInputs;
        const double mean = sum > 0 ? sum / static_cast<double>(n_) : 1.0;
        for (const Index j : dead_) diagonal[static_cast<std::size_t>(j)] = static_cast<T>(mean);

        std::vector<T> permuted(diagonal.size());
        for (std::size_t p = 0; p < diagonal.size(); ++p)
            permuted[p] = diagonal[static_cast<std::size_t>(order_[p])];
        if (consumed.rows() == 0 || !is_natural()) {
            Matrix ordered = backend_.template workspace<T>(n_, n_);
            backend_.permute(gram, order(), ordered.view());
            consumed = std::move(ordered);
        }
        gram_ = FactoredGram<T, B>(std::move(consumed), std::move(permuted));
        damping_ = key.damping.initial;
        for (retries_ = 0; !gram_.factor(backend_, static_cast<T>(damping_ * mean), cholesky); ++retries_) {
            if (retries_ == key.damping.max_retries) return Status::NotPositiveDefinite;
            damping_ = key.damping.next(damping_);
        }
        return Status::Success;
    }

    /// A row with NaN or infinity times zeros is NaN.
    bool rows_are_finite(MatrixView<const T> a) {
        if constexpr (requires { backend_.is_finite(a); }) return backend_.is_finite(a);
        Matrix zeros = backend_.template workspace<T>(a.cols, 1);
        Matrix sums = backend_.template workspace<T>(a.rows, 1);
        backend_.set_zero(zeros.view());
        backend_.multiply(T(1), Transpose::No, a, std::as_const(zeros).view(), T(0), sums.view());
        return all_finite(backend_.read(std::as_const(sums).view()));
    }

    bool is_natural() const { return std::is_sorted(order_.begin(), order_.end()); }

    static bool all_finite(const std::vector<T>& values) {
        return std::all_of(values.begin(), values.end(), [](T v) { return detail::is_finite(v); });
    }

    /// The lower triangle of X <- R^-1 X: what lies right of the diagonal is not needed, which leaves n^3/3 of n^3
    /// operations.
    void solve_lower_triangle(MatrixView<T> x) const {
        if constexpr (requires { backend_.solve_upper_below(factor(), x); }) {
            if (backend_.solve_upper_below(factor(), x)) return;
        }
        solve_lower_triangle(x, 0, n_);
    }

    /// For rows [begin, end) of R, by halves from the last row up.
    void solve_lower_triangle(MatrixView<T> x, Index begin, Index end) const {
        constexpr Index leaf = 256;
        const MatrixView<const T> r = factor();
        if (end - begin <= leaf) {
            backend_.solve_upper(r.block(begin, begin, end - begin, end - begin),
                                 x.block(begin, 0, end - begin, end));
            return;
        }
        const Index middle = begin + (end - begin + leaf - 1) / leaf / 2 * leaf;
        solve_lower_triangle(x, middle, end);
        backend_.multiply(T(-1), Transpose::No, r.block(begin, middle, middle - begin, end - middle),
                          MatrixView<const T>(x.block(middle, 0, end - middle, middle)), T(1),
                          x.block(begin, 0, middle - begin, middle));
        solve_lower_triangle(x, begin, middle);
    }

    B& backend_;
    MatrixView<const T> cross_;
    MatrixView<const T> stream_cross_;
    Index n_;
    double damping_ = 0;
    int retries_ = 0;
    std::vector<Index> dead_;
    std::vector<Index> dead_positions_;
    std::vector<Index> order_;
    FactoredGram<T, B> gram_;
    mutable Matrix consumed_cross_;
    Matrix consumed_stream_cross_;
    Status status_;  // initialized last: factor() fills the members above

    mutable std::mutex mutex_;
    mutable Matrix residuals_before_;
    mutable Matrix residuals_;
};

}  // namespace residua
