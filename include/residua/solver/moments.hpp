#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "residua/solver/factorization.hpp"

namespace residua {

/// Second moments of a layer's inputs, all that the solvers need to know of the calibration tokens:
///
///     H = sum_t w_t x_t x_t'            (in_features, in_features)
///     D = sum_t w_t (x_fp_t - x_t) x_t' (in_features, in_features), with reference inputs only
///
/// x is what the layer sees in the partly quantized model, x_fp what the same tokens give in the
/// full-precision model. Sums over batches, devices or processes add up by merge(). Solvers that share
/// moments share their factorization too.
///
/// Costs n^2 operations a token for H and 2 n^2 for D.
///
/// What is const may be called from several threads at a time, by solvers too, if the backend serves several
/// threads; accumulate(), merge() and consume() need the moments to themselves.
///
/// \tparam T  element type of the sums, float or double
/// \tparam B  where they live and who adds them up, see Backend
template <Real T, Backend<T> B>
class Moments {
  public:
    /// `backend` must outlive the moments.
    Moments(B& backend, Index in_features) : backend_(&backend), n_(in_features) {
        require(in_features >= 1, "Moments: in_features is", in_features, "at least 1");
        gram_ = backend.template workspace<T>(n_, n_);
        backend.set_zero(gram_.view());
    }

    /// Moments saved earlier. `gram` (n, n) symmetric; `cross` (n, n) or empty; host values.
    Moments(B& backend, MatrixView<const T> gram, MatrixView<const T> cross, Index tokens)
        : Moments(backend, gram.rows) {
        require(gram.cols == n_, "Moments: gram has columns:", gram.cols, "as many as rows");
        require(tokens >= 0, "Moments: tokens is", tokens, "at least 0");
        write(gram, gram_);
        if (cross.data) {
            require(cross.rows == n_ && cross.cols == n_, "Moments: cross has rows:", cross.rows,
                    "the size of gram");
            create_cross();
            write(cross, cross_);
        }
        tokens_ = tokens;
        mirrored_ = true;
    }

    B& backend() const { return *backend_; }
    Index in_features() const { return n_; }
    bool has_reference() const { return cross_.rows() != 0; }

    /// Tokens of positive weight so far.
    Index tokens() const { return tokens_; }

    /// Adds a batch of inputs x (tokens, in_features) to H. `weights`: empty, or one finite value >= 0 per
    /// token (0 masks a padding token, whose activations are not read).
    template <class In>
    requires Element<std::remove_const_t<In>>
    void accumulate(MatrixView<In> inputs, std::span<const float> weights = {}) {
        const auto x = read_only(inputs);
        check("x", x, x.rows);
        const Index counted = count(x.rows, weights);
        require(!has_reference(), "Moments::accumulate: x_fp is", "absent",
                "reference inputs, as in the batches before");
        changed();
        backend_->accumulate_gram(x, weights, gram_.view());
        tokens_ += counted;
    }

    /// Adds a batch of inputs x and reference inputs x_fp, both (tokens, in_features), to H and D.
    template <class In, class Ref>
    requires Element<std::remove_const_t<In>> &&
        std::same_as<std::remove_const_t<In>, std::remove_const_t<Ref>>
    void accumulate(MatrixView<In> inputs, MatrixView<Ref> references, std::span<const float> weights = {}) {
        const auto x = read_only(inputs);
        const auto x_fp = read_only(references);
        check("x", x, x.rows);
        check("x_fp", x_fp, x.rows);
        const Index counted = count(x.rows, weights);
        require(has_reference() || tokens_ == 0, "Moments::accumulate: x_fp is", "given",
                "absent, as in the batches before");
        changed();
        if (!has_reference()) create_cross();
        backend_->accumulate_gram(x, weights, gram_.view());
        backend_->accumulate_cross(x, x_fp, weights, cross_.view());
        tokens_ += counted;
    }

    /// Adds the sums of `other`, which must be of the same size and kind (both with or both without reference
    /// inputs, unless one of them is still empty).
    void merge(const Moments& other) {
        require(other.n_ == n_, "Moments::merge: other.in_features is", other.n_,
                std::to_string(n_) + ", the in_features of this");
        if (other.tokens_ == 0) return;
        require(tokens_ == 0 || has_reference() == other.has_reference(),
                "Moments::merge: other's reference inputs are", other.has_reference() ? "given" : "absent",
                has_reference() ? "given, as in this" : "absent, as in this");
        changed();
        backend_->add(std::as_const(other.gram_).view(), gram_.view());
        if (other.has_reference()) {
            if (!has_reference()) create_cross();
            backend_->add(std::as_const(other.cross_).view(), cross_.view());
        } else {
            cross_ = {};  // of batches without a token
        }
        tokens_ += other.tokens_;
    }

    /// H, both triangles; where the backend keeps it.
    MatrixView<const T> gram() const {
        const std::lock_guard lock(mutex());
        return mirrored_gram();
    }

    /// D, or an empty view.
    MatrixView<const T> cross() const { return std::as_const(cross_).view(); }

    /// H as R R', made at the first call and kept until the moments change or another key is asked for.
    std::shared_ptr<const Factorization<T, B>> factorization(const FactorizationKey& key) const {
        const std::lock_guard lock(mutex());
        if (!state_->factorization || !(state_->key == key)) {
            state_->factorization.reset();  // before the next one takes its memory
            state_->factorization =
                std::make_shared<const Factorization<T, B>>(*backend_, mirrored_gram(), cross(), key);
            state_->key = key;
        }
        return state_->factorization;
    }

    /// H as R R' in the memory of the moments, which are empty afterwards.
    std::shared_ptr<const Factorization<T, B>> consume(const FactorizationKey& key) {
        mirrored_gram();
        forget_factorization();
        tokens_ = 0;
        return std::make_shared<const Factorization<T, B>>(*backend_, std::move(gram_), std::move(cross_),
                                                           key);
    }

    /// Frees the memory of the factorization; the next solve makes it anew.
    void forget_factorization() const {
        const std::lock_guard lock(mutex());
        state_->factorization.reset();
    }

  private:
    struct State {
        std::mutex mutex;
        FactorizationKey key{SolverOptions{}};
        std::shared_ptr<const Factorization<T, B>> factorization;
    };

    std::mutex& mutex() const { return state_->mutex; }

    MatrixView<const T> mirrored_gram() const {
        if (!mirrored_) {
            backend_->mirror(gram_.view());
            mirrored_ = true;
        }
        return std::as_const(gram_).view();
    }

    void changed() {
        state_->factorization.reset();
        mirrored_ = false;
    }

    void create_cross() {
        cross_ = backend_->template workspace<T>(n_, n_);
        backend_->set_zero(cross_.view());
    }

    void write(MatrixView<const T> source, typename B::template Matrix<T>& target) {
        std::vector<T> values;
        for (Index i = 0; i < source.rows; ++i)
            values.insert(values.end(), source.row(i), source.row(i) + source.cols);
        backend_->write(values, target.view());
    }

    template <class In>
    void check(const char* name, MatrixView<const In> x, Index tokens) const {
        require(gram_.rows() == n_, "Moments::accumulate: the moments were", "used up by a solver",
                "moments with their memory");
        const std::string what = std::string("Moments::accumulate: ") + name;
        detail::require_matrix(what, x, n_);
        require(x.rows == tokens, what + " has rows:", x.rows, std::to_string(tokens) + " (tokens of x)");
    }

    static Index count(Index tokens, std::span<const float> weights) {
        if (weights.empty()) return tokens;
        require(static_cast<Index>(weights.size()) == tokens,
                "Moments::accumulate: weights has elements:", weights.size(),
                std::to_string(tokens) + " (tokens of x)");
        Index positive = 0;
        for (const float w : weights) {
            require(detail::is_finite(w) && w >= 0, "Moments::accumulate: weights holds", w,
                    "finite values of at least 0");
            positive += w > 0;
        }
        return positive;
    }

    B* backend_;
    Index n_;
    Index tokens_ = 0;
    mutable typename B::template Matrix<T> gram_;
    typename B::template Matrix<T> cross_;
    mutable bool mirrored_ = false;
    std::unique_ptr<State> state_ = std::make_unique<State>();
};

}  // namespace residua
