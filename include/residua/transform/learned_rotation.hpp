#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "residua/backends/host.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/transform/activation_quantizer.hpp"

namespace residua {

/// How much noise rounding adds to what linear layers compute, as a function of an orthogonal matrix R, (n, n), that
/// rotates a space which they read or write: what learn_rotation() lowers. Of weights or inputs with p n features every
/// n neighbours (a head) are rotated.
///
/// A value that is rounded with scale s is off by a number in [-s/2, s/2], whose mean square is s^2 / 12. Expected
/// squared errors per token are thus, with s the scales that rotated values get,
///
///     inputs x that are rounded, for each token t     Σ_features s(x_t R)^2 / 12
///     weights W that read x R, H = mean x x'          Σ_rows i Σ_groups g  s(W_i R, g)^2 / 12  Σ_{j in g} (R' H R)_jj
///     weights R' W that write, h = mean squares of x  Σ_rows i Σ_groups g  s((R' W)_i, g)^2 / 12  Σ_{j in g} h_j
///
/// so that moments stand for the tokens of weights, and tokens are looked at only where they are rounded themselves.
/// This is no gradient through a model: SpinQuant (arXiv 2405.16406) learns rotations by the model's loss.
///
/// The scale of a group is its range over a number of steps. In place of the range stands one with gradients
/// everywhere, that of norms in place of the ends: |max(y, 0)|_p + |min(y, 0)|_p, or twice |y|_p for symmetric grids.
///
/// An evaluation takes 2 r n^2 operations for r rows of n values in all that was added, 4 r n^2 with a gradient; memory is
/// 8 bytes for each of these values and 8 n^2 for the gradient. Results are the same bits for any number of threads. One
/// thread at a time.
template <std::derived_from<HostBackend> B>
class RotationNoise {
  public:
    /// `norm`: p, a power of two. Throws std::invalid_argument for anything else. `backend` must outlive this.
    RotationNoise(B& backend, Index features, int norm = 8)
        : backend_(backend), features_(features), squarings_(std::countr_zero(unsigned(norm))), norm_(norm) {
        require(features >= 1, "RotationNoise: features is", features, "at least 1");
        require(norm >= 2 && norm <= 64 && std::has_single_bit(unsigned(norm)), "RotationNoise: norm is",
                norm, "a power of two from 2 to 64");
    }

    Index features() const { return features_; }
    B& backend() const { return backend_; }

    /// Inputs x (tokens, p n), rounded by `quantizer` behind the rotation. `weight` multiplies their squared error: the
    /// mean square of a column of the weights that read them makes it one of outputs.
    void add_inputs(MatrixView<const float> x, const ActivationQuantizer& quantizer, double weight = 1) {
        quantizer.validate();
        const Index pieces = pieces_of("RotationNoise::add_inputs: x", x, x.cols);
        check_weight("RotationNoise::add_inputs", weight);
        if (x.rows == 0) return;
        Term term(pieces, x.cols, quantizer.group_size == -1 ? x.cols : quantizer.group_size);
        const IntegerGrid grid{.bits = quantizer.bits, .symmetry = quantizer.symmetry};
        const double clip = quantizer.clip_ratio;
        term.set_steps(grid, clip * clip * weight / double(x.rows));
        for (Index g = 0; g < term.groups(); ++g) term.importance.push_back(double(term.size_of(g)));
        term.z = rows_of(x);
        add(std::move(term));
    }

    /// Weights w (out_features, p n) that read rotated inputs, on `grid` in groups of `group_size` columns (-1: all of
    /// a row). `gram`: the mean of x x' over tokens, (p n, p n), before the rotation.
    void add_readers(MatrixView<const float> w, const IntegerGrid& grid, Index group_size,
                     MatrixView<const float> gram, double weight = 1) {
        grid.validate();
        const Index pieces = pieces_of("RotationNoise::add_readers: w", w, w.cols);
        detail::require_matrix("RotationNoise::add_readers: gram", gram, w.cols);
        require(gram.rows == w.cols, "RotationNoise::add_readers: gram.rows is", gram.rows,
                std::to_string(w.cols) + " (in_features)");
        check_group("RotationNoise::add_readers", group_size);
        check_weight("RotationNoise::add_readers", weight);
        Term term(pieces, w.cols, group_size == -1 ? w.cols : group_size);
        term.set_steps(grid, weight);
        if (term.groups() == 1) {
            double trace = 0;  // which rotations leave as it is
            for (Index j = 0; j < w.cols; ++j) trace += double(gram(j, j));
            term.importance = {trace};
        } else {
            term.importance.resize(std::size_t(term.groups()));
            term.gram = Matrix<double>(w.cols, features_);  // the blocks on the diagonal, one below the other
            for (Index i = 0; i < w.cols; ++i) {
                for (Index j = 0; j < features_; ++j)
                    term.gram(i, j) = double(gram(i, i / features_ * features_ + j));
            }
        }
        term.z = rows_of(w);
        add(std::move(term));
    }

    /// Weights w (p n, in_features) whose outputs are rotated, on `grid` in groups of `group_size` columns (-1: all of a
    /// row). `squares`: the mean square of each input.
    void add_writers(MatrixView<const float> w, const IntegerGrid& grid, Index group_size,
                     std::span<const double> squares, double weight = 1) {
        grid.validate();
        detail::require_matrix("RotationNoise::add_writers: w", w, w.cols);
        const Index pieces = w.rows / features_;
        require(pieces >= 1 && pieces * features_ == w.rows, "RotationNoise::add_writers: w.rows is", w.rows,
                "a multiple of " + std::to_string(features_) + " (features)");
        require(Index(squares.size()) == w.cols, "RotationNoise::add_writers: squares has", squares.size(),
                std::to_string(w.cols) + " elements (in_features)");
        check_group("RotationNoise::add_writers", group_size);
        check_weight("RotationNoise::add_writers", weight);
        for (Index p = 0; p < pieces; ++p) {
            Term term(1, w.cols, group_size == -1 ? w.cols : group_size);
            term.writes = true;
            term.set_steps(grid, weight);
            for (Index g = 0; g < term.groups(); ++g) {
                const auto first = squares.begin() + g * term.group;
                term.importance.push_back(std::accumulate(first, first + term.size_of(g), 0.0));
            }
            term.z = Matrix<double>(w.cols, features_);
            for (Index k = 0; k < w.cols; ++k) {
                for (Index j = 0; j < features_; ++j) term.z(k, j) = double(w(p * features_ + j, k));
            }
            add(std::move(term));
        }
    }

    /// The noise with R, (n, n).
    double value(MatrixView<const double> r) { return evaluate(r, {}); }

    /// The noise with R, and its derivatives by the elements of R in `gradient`, (n, n).
    double value_and_gradient(MatrixView<const double> r, MatrixView<double> gradient) {
        detail::require_matrix("RotationNoise: gradient", gradient, features_);
        require(gradient.rows == features_, "RotationNoise: gradient.rows is", gradient.rows,
                std::to_string(features_) + " (features)");
        return evaluate(r, gradient);
    }

  private:
    static constexpr Index lanes = 8;           // sums that are made one beside the other
    static constexpr Index rows_at_once = 512;  // of z

    /// z R, cut into cells that share a scale: along rows of `width` values or, where layers write, down columns of
    /// `width` rows.
    struct Term {
        Index pieces;  ///< rows of z that are one of inputs or weights
        Index width;
        Index group;
        bool writes = false;
        bool two_ended = true;
        double factor = 0;                    ///< of a cell's squared range and importance
        std::vector<double> importance = {};  ///< of each group
        Matrix<double> z = {};                ///< (rows, n)
        Matrix<double> gram = {};             ///< (width, n), where R decides the importance

        Term(Index pieces_, Index width_, Index group_)
            : pieces(pieces_), width(width_), group(std::min(group_, width_)) {}

        Index groups() const { return (width + group - 1) / group; }
        Index size_of(Index g) const { return std::min(group, width - g * group); }

        /// Where s = range / steps, with the range of symmetric grids twice the largest value.
        void set_steps(const IntegerGrid& grid, double weight) {
            const double last = double(grid.levels() - 1);
            const double steps = grid.symmetry == Symmetry::Restricted ? last - 1 : last;
            two_ended = grid.two_ended();
            factor = weight / (12 * steps * steps);
        }
    };

    /// Some rows of a term's z, whole cells.
    struct Task {
        std::size_t term;
        Index first;
        Index rows;
    };

    /// What one lane sums up.
    struct Sums {
        double value = 0;
        Matrix<double> gradient = {};                  ///< (n, n)
        std::vector<std::vector<double>> ranges = {};  ///< of each term with a gram, squared, of each group
    };

    template <class T>
    Index pieces_of(const std::string& what, MatrixView<T> view, Index cols) const {
        detail::require_matrix(what, view, cols);
        const Index pieces = cols / features_;
        require(pieces >= 1 && pieces * features_ == cols, what + ".cols is", cols,
                "a multiple of " + std::to_string(features_) + " (features)");
        return pieces;
    }
    static void check_group(const std::string& what, Index group_size) {
        require(group_size == -1 || group_size >= 1, what + ": group_size is", group_size, "positive, or -1");
    }
    static void check_weight(const std::string& what, double weight) {
        require(weight >= 0 && std::isfinite(weight), what + ": weight is", weight, "at least 0, and finite");
    }

    /// Every n neighbours a row of their own.
    Matrix<double> rows_of(MatrixView<const float> m) const {
        Matrix<double> z(m.rows * m.cols / features_, features_);
        for (Index i = 0; i < m.rows; ++i) std::copy_n(m.row(i), m.cols, z.data() + i * m.cols);
        return z;
    }

    void add(Term term) {
        const std::size_t index = terms_.size();
        const Index cell = term.writes ? term.group : term.pieces;
        const Index rows = std::max<Index>(1, rows_at_once / cell) * cell;
        for (Index first = 0; first < term.z.rows(); first += rows)
            tasks_.push_back({index, first, std::min(rows, term.z.rows() - first)});
        terms_.push_back(std::move(term));
    }

    double evaluate(MatrixView<const double> r, MatrixView<double> gradient) {
        detail::require_matrix("RotationNoise: r", r, features_);
        require(r.rows == features_, "RotationNoise: r.rows is", r.rows,
                std::to_string(features_) + " (features)");
        const bool wants_gradient = gradient.data != nullptr;
        std::vector<Matrix<double>> turned(terms_.size());  // H R, for terms with a gram
        for (std::size_t i = 0; i < terms_.size(); ++i)
            if (terms_[i].gram.rows() > 0) turned[i] = find_importance(terms_[i], r);

        std::array<Sums, lanes> sums;
        backend_.executor()(lanes, [&](Index lane) {
            Sums& mine = sums[std::size_t(lane)];
            B alone{Executor(1)};
            if (wants_gradient) {
                mine.gradient = Matrix<double>(features_, features_);
                alone.set_zero(mine.gradient.view());
            }
            for (const Term& term : terms_)
                mine.ranges.emplace_back(term.gram.rows() > 0 ? std::size_t(term.groups()) : 0u);
            for (std::size_t t = std::size_t(lane); t < tasks_.size(); t += std::size_t(lanes))
                run(alone, tasks_[t], r, wants_gradient, mine);
        });

        double value = 0;
        if (wants_gradient) backend_.set_zero(gradient);
        for (Sums& lane : sums) {
            value += lane.value;
            if (wants_gradient) backend_.add(read_only(lane.gradient.view()), gradient);
        }
        if (wants_gradient) {
            for (std::size_t i = 0; i < terms_.size(); ++i)
                if (terms_[i].gram.rows() > 0) add_importance(i, turned[i], sums, gradient);
        }
        return value;
    }

    /// H_pp R for each piece p, and from it Σ_{j in g} (R' H_pp R)_jj.
    Matrix<double> find_importance(Term& term, MatrixView<const double> r) {
        Matrix<double> hr(term.width, features_);
        for (Index p = 0; p < term.width; p += features_)
            backend_.multiply(1.0, Transpose::No, read_only(term.gram.view().row_range(p, features_)), r, 0.0,
                              hr.view().row_range(p, features_));
        std::fill(term.importance.begin(), term.importance.end(), 0.0);
        for (Index i = 0; i < term.width; ++i) {
            const Index first = i / features_ * features_;
            for (Index j = 0; j < features_; ++j)
                term.importance[std::size_t((first + j) / term.group)] += r(i - first, j) * hr(i, j);
        }
        return hr;
    }

    /// What changes with the importance: 2 (Σ_rows range^2)_g H_pp r_j for each column j.
    void add_importance(std::size_t index, const Matrix<double>& hr, const std::array<Sums, lanes>& sums,
                        MatrixView<double> gradient) const {
        const Term& term = terms_[index];
        std::vector<double> ranges(std::size_t(term.groups()));
        for (const Sums& lane : sums) {
            for (std::size_t g = 0; g < ranges.size(); ++g) ranges[g] += lane.ranges[index][g];
        }
        for (Index i = 0; i < term.width; ++i) {
            const Index first = i / features_ * features_;
            for (Index j = 0; j < features_; ++j)
                gradient(i - first, j) +=
                    2 * term.factor * ranges[std::size_t((first + j) / term.group)] * hr(i, j);
        }
    }

    void run(B& alone, const Task& task, MatrixView<const double> r, bool wants_gradient, Sums& sums) const {
        const Term& term = terms_[task.term];
        const MatrixView<const double> z = term.z.view().row_range(task.first, task.rows);
        Matrix<double> y(task.rows, features_);
        alone.multiply(1.0, Transpose::No, z, r, 0.0, y.view());
        Matrix<double> columns;
        if (term.writes) {
            columns = Matrix<double>(features_, task.rows);
            alone.transpose(read_only(y.view()), columns.view());
        }
        const auto cell = [&](double* values, Index g) {
            const double a = term.factor * term.importance[std::size_t(g)];
            const double squared =
                squared_range(values, term.size_of(g), term.two_ended, wants_gradient ? a : 0);
            sums.value += a * squared;
            if (term.gram.rows() > 0) sums.ranges[task.term][std::size_t(g)] += squared;
        };
        if (term.writes) {
            for (Index j = 0; j < features_; ++j) {
                for (Index first = 0; first < task.rows; first += term.group)
                    cell(columns.view().row(j) + first, (task.first + first) / term.group);
            }
            if (wants_gradient) alone.transpose(read_only(columns.view()), y.view());
        } else {
            for (Index i = 0; i < task.rows; i += term.pieces) {
                for (Index g = 0; g < term.groups(); ++g) cell(y.view().row(i) + g * term.group, g);
            }
        }
        if (wants_gradient)
            alone.multiply(1.0, Transpose::Yes, z, read_only(y.view()), 1.0, sums.gradient.view());
    }

    /// The squared range of a cell and, where `a` is not 0, a times its gradient in place of the values.
    double squared_range(double* y, Index count, bool two_ended, double a) const {
        constexpr Index width = 8;  // sums beside each other, as vector code
        double largest = 0;
        for (Index i = 0; i < count; ++i) largest = std::max(largest, std::abs(y[i]));
        if (largest == 0) return 0;  // where there is no gradient either
        const double unit = 1 / largest;
        double high[width] = {};
        double low[width] = {};
        const auto visit = [&](double* values, Index active) {
            for (Index l = 0; l < active; ++l) {
                const double t = std::abs(values[l]) * unit;
                double power = 1;  // t^(p - 1)
                double square = t;
                for (int s = 0; s < squarings_; ++s) {
                    power *= square;
                    square *= square;
                }
                high[l] += values[l] > 0 ? power * t : 0.0;
                low[l] += values[l] > 0 ? 0.0 : power * t;
                values[l] = values[l] > 0 ? power : -power;
            }
        };
        Index i = 0;
        for (; i + width <= count; i += width) visit(y + i, width);
        visit(y + i, count - i);

        double up = std::accumulate(high, high + width, 0.0);
        double down = std::accumulate(low, low + width, 0.0);
        if (!two_ended) up = down = up + down;
        const double p = double(norm_);
        const double above = std::pow(up, 1 / p);
        const double below = std::pow(down, 1 / p);
        const double range = largest * (above + below);
        if (a != 0) {
            // of |y|_p by y_i: (|y_i| / |y|_p)^(p - 1) with the sign of y_i; twice that where both ends are one
            const double by = 2 * a * range * (two_ended ? 1.0 : 2.0);
            const double for_high = up > 0 ? by * std::pow(above, 1 - p) : 0;
            const double for_low = down > 0 ? by * std::pow(below, 1 - p) : 0;
            for (Index k = 0; k < count; ++k) y[k] *= y[k] > 0 ? for_high : for_low;
        }
        return range * range;
    }

    B& backend_;
    Index features_;
    int squarings_;
    int norm_;
    std::vector<Term> terms_;
    std::vector<Task> tasks_;
};

struct RotationOptions {
    Index steps = 100;  ///< at most
    double tolerance =
        1e-3;  ///< ends where ten steps together have taken away less than this part of the noise

    void validate() const {
        require(steps >= 0, "RotationOptions: steps is", steps, "at least 0");
        require(tolerance >= 0 && tolerance < 1, "RotationOptions: tolerance is", tolerance,
                "a number in [0, 1)");
    }
};

struct LearnedRotation {
    Matrix<double> rotation = {};    ///< (n, n), orthogonal: |R R' - I| is some rounding errors
    std::vector<double> noise = {};  ///< before the first step and after each; never rises
    Index evaluations = 0;           ///< of the noise, those with a gradient included
    bool has_settled = false;        ///< it ended before `steps` were taken

    Index steps() const { return Index(noise.size()) - 1; }
};

namespace detail {

/// Steps on the orthogonal group, and the memory for them.
template <class B>
class OrthogonalStep {
  public:
    OrthogonalStep(B& backend, Index n)
        : backend_(backend), product_(n, n), spread_(n, n), before_(n, n), slopes_before_(n, n) {}

    /// A = G R' - R G', skew: the slope of the noise along exp(-t A) R is -|A|^2 / 2 at t = 0.
    Matrix<double> direction(const Matrix<double>& r, const Matrix<double>& gradient) {
        Matrix<double> a(r.rows(), r.rows());
        backend_.transpose(r.view(), spread_.view());
        multiply(gradient, spread_, product_);
        for (Index i = 0; i < a.rows(); ++i) {
            for (Index j = 0; j < a.rows(); ++j) a(i, j) = product_(i, j) - product_(j, i);
        }
        return a;
    }

    /// How long the next step along A should be, by what the last call was given: the length of Barzilai and Borwein,
    /// one of both by turns, with A R for the gradient. At first, and at most in the long run, it turns by so many
    /// radians in the mean.
    double length(const Matrix<double>& a, const Matrix<double>& r) {
        constexpr double first_angle = 0.1;
        constexpr double largest_angle = 1;
        const Index n = r.rows();
        const double radian = std::sqrt(double(n) / backend_.dot(a.view(), a.view()));
        Matrix<double> slopes(n, n);
        multiply(a, r, slopes);
        double moved = 0;
        double bent = 0;
        double along = 0;
        for (Index i = 0; i < n && calls_ > 0; ++i) {
            for (Index j = 0; j < n; ++j) {
                const double move = r(i, j) - before_(i, j);
                const double bend = slopes(i, j) - slopes_before_(i, j);
                moved += move * move;
                bent += bend * bend;
                along += move * bend;
            }
        }
        backend_.copy(r.view(), before_.view());
        slopes_before_ = std::move(slopes);
        along = std::abs(along);
        double t = first_angle * radian;
        if (along > 0) t = calls_ % 2 == 0 ? moved / along : along / bent;
        ++calls_;
        return std::min(t, largest_angle * radian);
    }

    /// The Cayley transform of -t A, applied to R: with S = -t/2 A,
    ///
    ///     (I - S)^-1 (I + S) R = (I + S S')^-1 (I + S) (I + S) R,
    ///
    /// by a Cholesky factorization, for I + S S' = (I - S)(I + S) is positive definite. Then one step of Newton and
    /// Schulz, R (3 I - R' R) / 2, so that rounding errors do not add up over steps.
    Matrix<double> along(const Matrix<double>& a, double t, const Matrix<double>& r) {
        const Index n = r.rows();
        Matrix<double> next(n, n);
        Matrix<double> s(n, n);
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < n; ++j) s(i, j) = (i == j ? 1.0 : 0.0) - t / 2 * a(i, j);  // I + S
        }
        multiply(s, r, product_);
        multiply(s, product_, next);
        multiply_transposed(s, s, spread_);  // (I + S)'(I + S) = I + S S'
        backend_.cholesky_upper(spread_.view());
        backend_.solve_upper(read_only(spread_.view()), next.view());
        backend_.solve_upper_transposed(read_only(spread_.view()), next.view());
        multiply_transposed(next, next, product_);
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < n; ++j) product_(i, j) = (i == j ? 1.5 : 0.0) - 0.5 * product_(i, j);
        }
        multiply(next, product_, s);
        return s;
    }

    /// max |R' R - I|
    double error(const Matrix<double>& r) {
        multiply_transposed(r, r, product_);
        double worst = 0;
        for (Index i = 0; i < r.rows(); ++i) {
            for (Index j = 0; j < r.rows(); ++j)
                worst = std::max(worst, std::abs(product_(i, j) - (i == j ? 1.0 : 0.0)));
        }
        return worst;
    }

  private:
    void multiply(const Matrix<double>& a, const Matrix<double>& x, Matrix<double>& c) {
        backend_.multiply(1.0, Transpose::No, a.view(), x.view(), 0.0, c.view());
    }
    void multiply_transposed(const Matrix<double>& a, const Matrix<double>& x, Matrix<double>& c) {
        backend_.multiply(1.0, Transpose::Yes, a.view(), x.view(), 0.0, c.view());
    }

    B& backend_;
    Matrix<double> product_, spread_;        // (n, n)
    Matrix<double> before_, slopes_before_;  // R and A R of the last call of length()
    Index calls_ = 0;
};

}  // namespace detail

/// Lowers the noise from `start`, (n, n), an orthogonal matrix: a random Hadamard matrix is a good one.
///
/// Gradient descent on the orthogonal group by Cayley transforms, as by SpinQuant's Cayley SGD (Li et al., arXiv
/// 2002.01113), but on all that was added at once and with a line search: a step begins as long as Barzilai and Borwein
/// say (Wen and Yin, 2013) and is halved until the noise falls by at least 1e-4 of what the slope promises. It ends
/// after `steps`, where ten steps have brought less than `tolerance`, or where no step lowers the noise any more.
///
/// A step takes an evaluation with a gradient, seldom two, and about 14 n^3 operations; memory is 10 n^2 numbers. The same
/// bits for any number of threads. Throws std::invalid_argument unless |start' start - I| is below 1e-6 and the noise at
/// `start` is finite.
template <std::derived_from<HostBackend> B>
LearnedRotation learn_rotation(RotationNoise<B>& noise, MatrixView<const double> start,
                               const RotationOptions& options = {}) {
    constexpr double orthogonal = 1e-6;
    constexpr double sufficient = 1e-4;  // of the slope
    constexpr std::size_t patience = 10;
    constexpr int halvings = 30;
    const Index n = noise.features();
    options.validate();
    detail::require_matrix("learn_rotation: start", start, n, "features");
    require(start.rows == n, "learn_rotation: start.rows is", start.rows, std::to_string(n) + " (features)");
    B& backend = noise.backend();
    detail::OrthogonalStep<B> step(backend, n);
    LearnedRotation learned;
    learned.rotation = Matrix<double>(n, n);
    backend.copy(start, learned.rotation.view());
    const double error = step.error(learned.rotation);
    require(error < orthogonal, "learn_rotation: |R' R - I| of start is", error,
            "below 1e-6: an orthogonal matrix");

    Matrix<double> gradient(n, n);
    learned.noise.push_back(noise.value_and_gradient(start, gradient.view()));
    learned.evaluations = 1;
    require(std::isfinite(learned.noise[0]), "learn_rotation: the noise at start is", learned.noise[0],
            "finite: no NaN or infinity in inputs and weights");
    while (learned.steps() < options.steps && !learned.has_settled) {
        const Matrix<double> a = step.direction(learned.rotation, gradient);
        const double slope = backend.dot(a.view(), a.view()) / 2;
        bool is_lower = false;
        if (slope > 0) {
            double t = step.length(a, learned.rotation);
            for (int h = 0; h < halvings && !is_lower; ++h, t /= 2) {
                Matrix<double> next = step.along(a, t, learned.rotation);
                const double reached = noise.value_and_gradient(next.view(), gradient.view());
                ++learned.evaluations;
                is_lower = reached < learned.noise.back() - sufficient * t * slope;
                if (!is_lower) continue;
                learned.rotation = std::move(next);
                learned.noise.push_back(reached);
            }
        }
        const std::size_t count = learned.noise.size();
        learned.has_settled =
            !is_lower || (count > patience && learned.noise.back() > (1 - options.tolerance) *
                                                                         learned.noise[count - 1 - patience]);
    }
    return learned;
}

}  // namespace residua
