#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "residua/solver/solver.hpp"

namespace residua {

namespace detail {

/// A backend whose matrices have sizes but no elements: what runs on it computes nothing, and tells how much
/// memory it would have taken on the backend `B`, which is asked for what its operations take themselves.
template <class B>
class PlanningBackend {
    struct Tally {
        std::size_t used = 0;
        std::size_t peak = 0;

        void take(std::size_t bytes) {
            used += bytes;
            peak = std::max(peak, used);
        }
    };

  public:
    template <class U>
    class Matrix {
      public:
        Matrix() = default;
        Matrix(std::shared_ptr<Tally> tally, Index rows, Index cols)
            : tally_(std::move(tally)), rows_(rows), cols_(cols) {
            tally_->take(bytes());
        }
        Matrix(Matrix&& other) noexcept { *this = std::move(other); }
        Matrix& operator=(Matrix&& other) noexcept {
            if (tally_) tally_->used -= bytes();
            tally_ = std::exchange(other.tally_, nullptr);
            rows_ = std::exchange(other.rows_, 0);
            cols_ = std::exchange(other.cols_, 0);
            return *this;
        }
        ~Matrix() {
            if (tally_) tally_->used -= bytes();
        }

        Index rows() const { return rows_; }
        Index cols() const { return cols_; }
        MatrixView<U> view() { return tally_ ? view_of<U>(rows_, cols_) : MatrixView<U>(); }
        MatrixView<const U> view() const {
            return tally_ ? view_of<const U>(rows_, cols_) : MatrixView<const U>();
        }

      private:
        std::size_t bytes() const { return static_cast<std::size_t>(rows_ * cols_) * sizeof(U); }

        std::shared_ptr<Tally> tally_;
        Index rows_ = 0;
        Index cols_ = 0;
    };

    struct Timestamp {};

    explicit PlanningBackend(B& backend) : backend_(backend) {}

    std::size_t used_bytes() const { return tally_->used; }
    std::size_t peak_bytes() const { return tally_->peak; }
    void reset_peak() { tally_->peak = tally_->used; }

    /// A view that nothing reads: it is not null, and that is all.
    template <class U>
    static MatrixView<U> view_of(Index rows, Index cols) {
        return {reinterpret_cast<U*>(std::uintptr_t(4096)), rows, cols};
    }

    template <class U>
    Matrix<U> allocate(Index rows, Index cols) {
        return Matrix<U>(tally_, rows, cols);
    }
    template <class U>
    Matrix<U> workspace(Index rows, Index cols) {
        return Matrix<U>(tally_, rows, cols);
    }
    template <class U>
    std::vector<std::remove_const_t<U>> read(MatrixView<U> a) {
        return std::vector<std::remove_const_t<U>>(static_cast<std::size_t>(a.rows * a.cols));
    }
    template <class U>
    void write(const std::vector<U>&, MatrixView<U>) {}
    Timestamp timestamp() { return {}; }
    double seconds(Timestamp, Timestamp) { return 0; }
    Index slab_rows(Index in_features, Index out_features) {
        return backend_.slab_rows(in_features, out_features);
    }

    template <class In, Real T>
    void accumulate_gram(MatrixView<const In>, std::span<const float>, MatrixView<T>) {}
    template <class In, Real T>
    void accumulate_cross(MatrixView<const In>, MatrixView<const In>, MatrixView<const In>,
                          std::span<const float>, MatrixView<T>) {}
    template <Real T>
    void add(MatrixView<const T>, MatrixView<T>) {}
    template <Real T>
    void subtract(MatrixView<const T>, MatrixView<T>) {}
    template <Real T>
    void mirror(MatrixView<T>) {}
    template <Real T>
    void mirror_lower(MatrixView<T>) {}

    /// Positive numbers, so that nothing is dead, in no order, so that an ordering by them is not the natural
    /// one.
    template <class T>
    std::vector<std::remove_const_t<T>> diagonal(MatrixView<T> a) {
        std::vector<std::remove_const_t<T>> d(static_cast<std::size_t>(a.rows));
        for (std::size_t i = 0; i < d.size(); ++i) d[i] = std::remove_const_t<T>(1 + 37 * i % 101);
        return d;
    }
    template <Real T>
    void set_diagonal(MatrixView<T>, const std::vector<T>&) {}
    template <Real T>
    void permute(MatrixView<const T>, std::span<const Index>, MatrixView<T>) {}
    template <Real T>
    void permute_transposed(MatrixView<const T>, std::span<const Index>, MatrixView<T>) {}
    template <Real T>
    void transpose_in_place(MatrixView<T>) {}
    template <Real T>
    void clear_row(MatrixView<T>, Index) {}
    template <Real T>
    void clear_column(MatrixView<T>, Index) {}
    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        if constexpr (requires { backend_.cholesky_upper_bytes(a); }) take(backend_.cholesky_upper_bytes(a));
        return true;
    }

    template <Real T>
    void multiply(T, Transpose, MatrixView<const T>, MatrixView<const T> x, T, MatrixView<T> c) {
        if constexpr (requires { backend_.multiply_bytes(x, c); }) take(backend_.multiply_bytes(x, c));
    }
    template <Real T>
    Matrix<Code> right_factor(Index rows, Index cols) requires requires(B& b) {
        b.template right_factor<T>(rows, cols);
    }
    { return {tally_, 1, static_cast<Index>(backend_.template right_factor_bytes<T>(rows, cols))}; }
    template <Real T>
    void extend(Matrix<Code>&, Index, MatrixView<const T>) {}
    template <Real T>
    void multiply(T, Transpose, MatrixView<const T>, const Matrix<Code>& factor, MatrixView<const T> x, T,
                  MatrixView<T> c) {
        take(backend_.multiply_bytes(factor.cols() > 0, x, c));
    }
    template <Real T>
    void solve_upper(MatrixView<const T>, MatrixView<T> x) {
        if constexpr (requires { backend_.solve_upper_bytes(x); }) take(backend_.solve_upper_bytes(x));
    }
    template <Real T>
    void solve_upper_transposed(MatrixView<const T> r, MatrixView<T> x) {
        solve_upper(r, x);
    }
    template <Real T>
    bool solve_upper_below(MatrixView<const T> r, MatrixView<T> x) requires requires(B& b) {
        b.solve_upper_below(r, x);
    }
    {
        solve_upper(r, x);
        return true;
    }
    template <Real T>
    double dot(MatrixView<const T>, MatrixView<const T>) {
        return 0;
    }
    template <Real T>
    void copy(MatrixView<const T>, MatrixView<T>) {}
    template <class U>
    void set_zero(MatrixView<U>) {}

    template <class In, class U>
    void load_columns(MatrixView<const In>, std::span<const Index>, MatrixView<U>, Code*) {}
    template <class U>
    void store_columns(MatrixView<const U>, std::span<const Index>, MatrixView<U>) {}
    template <class U>
    void transpose(MatrixView<const U>, MatrixView<U>) {}
    template <Real T, Grid<T> G>
    void fit(const G&, MatrixView<const T>, MatrixView<const T>, std::span<const std::vector<Index>>,
             MatrixView<T>, MatrixView<T>, MatrixView<T> = {}) {}
    template <Real T, Grid<T> G>
    void round(const G&, MatrixView<const T>, std::span<const Index>, MatrixView<const T>,
               MatrixView<const T>, MatrixView<Code>) {}
    template <Real T, Grid<T> G>
    void subtract_decoded(const G&, MatrixView<const Code>, std::span<const Index>, MatrixView<const T>,
                          MatrixView<const T>, MatrixView<T>) {}
    template <Real T, Method M, Grid<T> G>
    void sweep(const M&, const G& grid, const SweepBlock<T>& block) {
        if constexpr (requires { backend_.template sweep_bytes<M>(grid, block); })
            take(backend_.template sweep_bytes<M>(grid, block));
    }

    template <Real T>
    Index refine_columns() const requires requires(const B& b) {
        b.template refine_columns<T>();
    }
    { return backend_.template refine_columns<T>(); }
    template <Real T, Grid<T> G>
    void refine(const G&, const RefineBlock<T>&) {}
    template <Real T, RefittableGrid<T> G>
    void refit(const G&, const RefineGroup<T>&) {}
    template <Real T, TwoLevelGrid<T> G>
    void share(const G&, const RefineFamily<T>&) {}
    template <Real T, TwoLevelGrid<T> G>
    void refit_shared(const G&, const RefineFamily<T>&, Number, const RefineGroup<T>&) {}
    template <Real T>
    void add_row_dots(MatrixView<const T>, MatrixView<const T>, MatrixView<double>) {}

  private:
    /// For as long as an operation runs.
    void take(std::size_t bytes) {
        tally_->take(bytes);
        tally_->used -= bytes;
    }

    B& backend_;
    std::shared_ptr<Tally> tally_ = std::make_shared<Tally>();
};

}  // namespace detail

/// What the moments of a planned solve have besides H.
struct PlannedMoments {
    bool reference = false;        ///< D
    bool residual_stream = false;  ///< D_h
};

/// Memory in bytes that Solver<M, T, B>::quantize of weights (out_features, in_features) onto `grid` takes at
/// most on top of moments and weights: the factorization, M, the columns of a slab, the refinement, the
/// objective, the result, and what the backend's operations take themselves. H and D take 2 n^2 elements
/// more, D_h m n; weights that a CUDA backend copies from host memory are not counted.
///
/// The solve is walked through without its arithmetic, so that this is its own plan. `held`: what the moments
/// have. Throws std::invalid_argument for unusable options.
template <Method M, Real T, Backend<T> B, Grid<T> G = IntegerGrid>
[[nodiscard]] std::size_t workspace_bytes(
    B& backend, Index out_features, Index in_features, const SolverOptions& options = {},
    PlannedMoments held = {.reference = M::residuals != Residuals::None}, const G& grid = {}) {
    using Planning = detail::PlanningBackend<B>;
    static_assert(Backend<Planning, T>, "a backend with just the operations of the concept");
    require(out_features >= 1, "workspace_bytes: out_features is", out_features, "at least 1");
    Planning planning(backend);
    Moments<T, Planning> moments(planning, in_features);
    const auto token = Planning::template view_of<const T>(1, in_features);
    const auto output = Planning::template view_of<const T>(1, out_features);
    const ResidualStream<T> stream{output, output};
    if (held.reference && held.residual_stream) moments.accumulate(token, token, stream);
    if (held.reference && !held.residual_stream) moments.accumulate(token, token);
    if (!held.reference && held.residual_stream) moments.accumulate(token, stream);
    if (!held.reference && !held.residual_stream) moments.accumulate(token);
    SolverOptions planned = options;
    planned.progress = {};
    const Solver<M, T, Planning> solver(moments, std::move(planned));
    planning.reset_peak();
    const std::size_t before = planning.used_bytes();
    const auto result = solver.quantize(Planning::template view_of<const T>(out_features, in_features), grid);
    return result ? planning.peak_bytes() - before : 0;
}

}  // namespace residua
