#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "residua/backends/host/executor.hpp"
#include "residua/core/view.hpp"
#include "residua/transform/butterflies.hpp"

namespace residua {

/// Whether there is a Hadamard transform of n features: n = 2^k K, see hadamard_base_order.
constexpr bool is_hadamard_order(Index n) { return detail::hadamard::hadamard_base_order(n) != 0; }

/// The largest divisor of n that is a Hadamard order: the block of a block Hadamard transform; n itself where
/// it is one.
inline Index largest_hadamard_block(Index n) {
    require(n >= 1, "largest_hadamard_block: n is", n, "at least 1");
    for (Index parts = 1; parts < n; ++parts) {
        if (n % parts == 0 && is_hadamard_order(n / parts)) return n / parts;
    }
    return 1;
}

/// +1 or -1, the i-th random sign of a seed, the same on every platform: the top bit of
/// mix(mix(seed + g) + i g), where g = 0x9e3779b97f4a7c15 and mix is the output function of splitmix64.
constexpr int hadamard_sign(std::uint64_t seed, Index i) {
    const auto mix = [](std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    };
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15u;
    return mix(mix(seed + golden) + static_cast<std::uint64_t>(i) * golden) >> 63 ? -1 : 1;
}

struct HadamardOptions {
    Index block = 0;  ///< features that are mixed; 0: the largest block that divides the features
    Index inner = 1;  ///< distance of the features that are mixed
    std::optional<std::uint64_t> seed = {};  ///< of the random signs; none: no signs
};

/// An orthogonal matrix that spreads outliers over all features at the cost of additions:
///
///     Q = diag(s) (I (x) H (x) I_inner),    H = (H_K (x) H_2 (x) ... (x) H_2) / sqrt(block),
///
/// (features, features), with H of order block = 2^k K, H_2 = [1 1; 1 -1], H_K = hadamard_base(K) and signs s
/// that are all 1 without a seed. QuaRot (arXiv 2404.00456) rotates rows of activations, x <- x Q, and the
/// weights that read them, W <- W Q, which leaves x W^T as it was: Q Q^T = I. A weight that writes rotated
/// features is Q^T W.
///
/// Feature (p block + i) inner + l mixes with those of the same p and l. So with `block` = head_dim each head
/// of a projection is rotated on its own, and with `block` = heads and `inner` = head_dim all heads are
/// mixed. Where the features are no Hadamard order, the default is the largest block that divides them.
///
/// Costs k + K/4 + 5 additions for each value (k where K = 1); reads and writes the matrix once while a row
/// fits a cache. The object itself is small and may be used by many threads.
class HadamardTransform {
  public:
    /// Throws std::invalid_argument where block * inner does not divide `features` or `block` is not the
    /// order of a Hadamard transform.
    explicit HadamardTransform(Index features, HadamardOptions options = {})
        : features_(features),
          inner_(options.inner),
          block_(choose_block(features, options)),
          base_(detail::hadamard::hadamard_base_order(block_)),
          forward_(base_, false),
          backward_(base_, true) {
        if (!options.seed) return;
        signs_.reserve(static_cast<std::size_t>(features));
        for (Index i = 0; i < features; ++i)
            signs_.push_back(static_cast<signed char>(hadamard_sign(*options.seed, i)));
    }

    Index features() const { return features_; }
    Index block() const { return block_; }  ///< order of H
    Index inner() const { return inner_; }
    Index base() const { return base_; }                              ///< K
    double scale() const { return 1 / std::sqrt(double(block_)); }    ///< |H_ij|
    const std::vector<signed char>& signs() const { return signs_; }  ///< s; empty without a seed

    /// x <- x Q for x (rows, features).
    template <Real T>
    void apply(MatrixView<T> x, const Executor& executor = Executor()) const {
        detail::require_matrix("HadamardTransform::apply: x", x, features_);
        transform_rows(x, executor, [&](T* row, const std::vector<T>& diagonal) {
            rotate(row, diagonal.data(), Index(1));
        });
    }

    /// x <- x Q^T for x (rows, features): undoes apply.
    template <Real T>
    void apply_transpose(MatrixView<T> x, const Executor& executor = Executor()) const {
        detail::require_matrix("HadamardTransform::apply_transpose: x", x, features_);
        transform_rows(x, executor, [&](T* row, const std::vector<T>& diagonal) {
            rotate_back(row, diagonal.data(), Index(1));
        });
    }

    /// x <- Q^T x for x (features, columns). Allocates (features, 256 bytes) for each thread.
    template <Real T>
    void apply_left(MatrixView<T> x, const Executor& executor = Executor()) const {
        require_rows("HadamardTransform::apply_left: x", x);
        transform_columns(x, executor, [&](T* strip, const std::vector<T>& diagonal) {
            rotate(strip, diagonal.data(), strip_columns<T>);
        });
    }

    /// x <- Q x for x (features, columns): undoes apply_left.
    template <Real T>
    void apply_left_transpose(MatrixView<T> x, const Executor& executor = Executor()) const {
        require_rows("HadamardTransform::apply_left_transpose: x", x);
        transform_columns(x, executor, [&](T* strip, const std::vector<T>& diagonal) {
            rotate_back(strip, diagonal.data(), strip_columns<T>);
        });
    }

    /// Q_ij, from the definition.
    double entry(Index i, Index j) const {
        require(i >= 0 && i < features_, "HadamardTransform::entry: i is", i, "a feature");
        require(j >= 0 && j < features_, "HadamardTransform::entry: j is", j, "a feature");
        const Index span = block_ * inner_;
        if (i / span != j / span || i % inner_ != j % inner_) return 0;
        const Index row = i % span / inner_;
        const Index column = j % span / inner_;
        const Index power = block_ / base_;
        const auto both = static_cast<std::uint64_t>((row % power) & (column % power));
        const int sign = std::popcount(both) % 2 ? -1 : 1;
        const int outer = forward_.sign(row / power, column / power);
        return scale() * sign * outer * (signs_.empty() ? 1 : signs_[static_cast<std::size_t>(i)]);
    }

  private:
    template <Real T>
    static constexpr Index strip_columns = 4 * detail::hadamard::line<T>;

    static Index choose_block(Index features, const HadamardOptions& options) {
        require(features >= 1, "HadamardTransform: features is", features, "at least 1");
        require(options.inner >= 1 && features % options.inner == 0, "HadamardTransform: inner is",
                options.inner, "a divisor of features");
        if (options.block == 0) return largest_hadamard_block(features / options.inner);
        require(is_hadamard_order(options.block), "HadamardTransform: block is", options.block,
                "2^k K with K = 1 or one of 12, 20, 28, ... 172 (hadamard_base_order)");
        require(features / options.inner % options.block == 0, "HadamardTransform: block is", options.block,
                "a divisor of features / inner");
        return options.block;
    }

    template <class T>
    void require_rows(const std::string& what, MatrixView<T> x) const {
        require(x.rows == features_, what + " has rows:", x.rows, std::to_string(features_) + " (features)");
        detail::require_matrix(what, x, x.cols);
    }

    /// s / sqrt(block)
    template <Real T>
    std::vector<T> diagonal() const {
        std::vector<T> values(static_cast<std::size_t>(features_), static_cast<T>(scale()));
        for (std::size_t i = 0; i < signs_.size(); ++i) values[i] *= static_cast<T>(signs_[i]);
        return values;
    }

    /// x <- x diag(d) (I (x) H (x) I_inner) for `width` transforms side by side.
    template <Real T>
    void rotate(T* x, const T* d, Index width) const {
        const Index power = block_ / base_;
        const Index run = power * inner_;
        for (Index start = 0; start < features_; start += block_ * inner_) {
            for (Index i = start; i < start + block_ * inner_; i += run) {
                multiply(x + i * width, d + i, run, width);
                detail::hadamard::transform_power(x + i * width, power, inner_ * width);
            }
            forward_.apply(x + start * width, run * width);
        }
    }

    /// The transpose: H_2 is symmetric, H_K need not be.
    template <Real T>
    void rotate_back(T* x, const T* d, Index width) const {
        const Index power = block_ / base_;
        const Index run = power * inner_;
        for (Index start = 0; start < features_; start += block_ * inner_) {
            backward_.apply(x + start * width, run * width);
            for (Index i = start; i < start + block_ * inner_; i += run) {
                detail::hadamard::transform_power(x + i * width, power, inner_ * width);
                multiply(x + i * width, d + i, run, width);
            }
        }
    }

    template <Real T>
    static void multiply(T* x, const T* d, Index count, Index width) {
        if (width == 1) {
            for (Index i = 0; i < count; ++i) x[i] *= d[i];
            return;
        }
        for (Index i = 0; i < count; ++i) {
            for (Index l = 0; l < width; ++l) x[i * width + l] *= d[i];
        }
    }

    template <Real T, class Rotate>
    void transform_rows(MatrixView<T> x, const Executor& executor, const Rotate& rotate_row) const {
        const std::vector<T> d = diagonal<T>();
        const Index chunk = std::max<Index>(1, Index(1 << 16) / features_);
        executor((x.rows + chunk - 1) / chunk, [&](Index task) {
            for (Index i = task * chunk; i < std::min(x.rows, (task + 1) * chunk); ++i)
                rotate_row(x.row(i), d);
        });
    }

    /// Strips of columns in buffers: rows of a matrix are often a power of two apart, where caches hold few.
    template <Real T, class Rotate>
    void transform_columns(MatrixView<T> x, const Executor& executor, const Rotate& rotate_strip) const {
        constexpr Index L = strip_columns<T>;
        const std::vector<T> d = diagonal<T>();
        const Index strips = (x.cols + L - 1) / L;
        const Index tasks = std::min<Index>(strips, executor.threads());
        std::vector<T> buffers(static_cast<std::size_t>(tasks * features_ * L), T(0));
        executor(tasks, [&](Index task) {
            T* buffer = buffers.data() + task * features_ * L;
            for (Index strip = task; strip < strips; strip += tasks) {
                const Index active = std::min(L, x.cols - strip * L);
                for (Index i = 0; i < features_; ++i)
                    std::copy_n(x.row(i) + strip * L, active, buffer + i * L);
                rotate_strip(buffer, d);
                for (Index i = 0; i < features_; ++i)
                    std::copy_n(buffer + i * L, active, x.row(i) + strip * L);
            }
        });
    }

    Index features_;
    Index inner_;
    Index block_;
    Index base_;
    detail::hadamard::BaseTransform forward_;
    detail::hadamard::BaseTransform backward_;
    std::vector<signed char> signs_;
};

/// H / sqrt(n) of order n, row-major (n, n): the explicit matrix of HadamardTransform(n), for tests and for
/// small n. Throws std::invalid_argument unless is_hadamard_order(n).
inline std::vector<double> hadamard_matrix(Index n) {
    const HadamardTransform transform(n, {.block = n});
    std::vector<double> matrix;
    matrix.reserve(static_cast<std::size_t>(n * n));
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) matrix.push_back(transform.entry(i, j));
    }
    return matrix;
}

}  // namespace residua
