#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "residua/core/sizes.hpp"
#include "residua/solver/factorization.hpp"

namespace residua {

/// The residual stream that a layer's output is added to (o_proj and down_proj of a transformer): h in the
/// partly quantized model and h_fp in the full-precision one, both (tokens, out_features) and before the
/// layer's output is added.
template <Element In>
struct ResidualStream {
    MatrixView<const In> h;
    MatrixView<const In> h_fp;
};

template <class In, class Ref>
ResidualStream(MatrixView<In>, MatrixView<Ref>) -> ResidualStream<std::remove_const_t<In>>;

/// Second moments of a layer's inputs, all that the solvers need to know of the calibration tokens:
///
///     H   = sum_t w_t x_t x_t'            (in_features, in_features)
///     D   = sum_t w_t (x_fp_t - x_t) x_t' (in_features, in_features), with reference inputs only
///     D_h = sum_t w_t (h_fp_t - h_t) x_t' (out_features, in_features), with the residual stream only
///
/// x is what the layer sees in the partly quantized model, x_fp what the same tokens give in the
/// full-precision model; h and h_fp are what the layer's output is added to, see ResidualStream. D_h belongs
/// to the one layer that writes to h, H and D to all that read x. Sums over batches, devices or processes add
/// up by merge(). Solvers that share moments share their factorization too.
///
/// Costs n^2 operations a token for H, 2 n^2 for D and 2 m n for D_h.
///
/// Where a backend fails in accumulate() or merge(), for want of memory for example, the sums may hold a part of
/// a batch: they are refused from then on. Of consume() they are empty whether it succeeds or not.
///
/// What is const may be called from several threads at a time, by solvers too, if the backend serves several
/// threads; accumulate(), merge() and consume() need the moments to themselves.
///
/// \tparam T  element type of the sums, float or double
/// \tparam B  where they live and who adds them up, see Backend
template <Real T, Backend<T> B>
class Moments {
  public:
    static constexpr Index most_tokens = Index(1)
                                         << 53;  ///< exact in double, too, in which ranks add them up

    /// `backend` must outlive the moments.
    Moments(B& backend, Index in_features) : backend_(&backend), n_(in_features) {
        require(in_features >= 1, "Moments: in_features is", in_features, "at least 1");
        require(detail::product_fits(n_, n_, sizeof(T)), "Moments: in_features is", in_features,
                "a number whose square is the size of a matrix");
        gram_ = backend.template workspace<T>(n_, n_);
        backend.set_zero(gram_.view());
    }

    /// Moments saved earlier. `gram` (n, n) symmetric; `cross` (n, n) or empty; `stream_cross`
    /// (out_features, n) or empty; host values.
    Moments(B& backend, MatrixView<const T> gram, MatrixView<const T> cross, Index tokens,
            MatrixView<const T> stream_cross = {})
        : Moments(backend, gram.rows) {
        require(gram.cols == n_, "Moments: gram has columns:", gram.cols, "as many as rows");
        require(tokens >= 0 && tokens <= most_tokens, "Moments: tokens is", tokens, "0 to 2^53");
        detail::require_matrix("Moments: gram", gram, n_);
        write(gram, gram_);
        if (cross.data) {
            require(cross.rows == n_ && cross.cols == n_, "Moments: cross has rows:", cross.rows,
                    "the size of gram");
            detail::require_matrix("Moments: cross", cross, n_);
            cross_ = zeros(n_);
            write(cross, cross_);
        }
        if (stream_cross.data) {
            require(stream_cross.rows >= 1, "Moments: stream_cross has rows:", stream_cross.rows,
                    "at least 1");
            require(stream_cross.cols == n_, "Moments: stream_cross has columns:", stream_cross.cols,
                    "those of gram");
            detail::require_matrix("Moments: stream_cross", stream_cross, n_);
            stream_cross_ = zeros(stream_cross.rows);
            write(stream_cross, stream_cross_);
        }
        tokens_ = tokens;
        mirrored_ = true;
    }

    /// What is moved from has no memory and no tokens; to use it is refused.
    Moments(Moments&& other) noexcept
        : backend_(other.backend_),
          n_(other.n_),
          tokens_(std::exchange(other.tokens_, 0)),
          gram_(std::move(other.gram_)),
          cross_(std::move(other.cross_)),
          stream_cross_(std::move(other.stream_cross_)),
          mirrored_(other.mirrored_),
          incomplete_(other.incomplete_),
          state_(std::move(other.state_)) {}
    Moments& operator=(Moments&& other) noexcept {
        backend_ = other.backend_;
        n_ = other.n_;
        tokens_ = std::exchange(other.tokens_, 0);
        gram_ = std::move(other.gram_);
        cross_ = std::move(other.cross_);
        stream_cross_ = std::move(other.stream_cross_);
        mirrored_ = other.mirrored_;
        incomplete_ = other.incomplete_;
        state_ = std::move(other.state_);
        return *this;
    }

    B& backend() const { return *backend_; }
    Index in_features() const { return n_; }
    bool has_reference() const { return cross_.rows() != 0; }
    bool has_residual_stream() const { return stream_cross_.rows() != 0; }

    /// Tokens of positive weight so far.
    Index tokens() const { return tokens_; }

    /// Adds a batch of inputs x (tokens, in_features) to H. `weights`: empty, or one finite value >= 0 per
    /// token (0 masks a padding token, whose activations are not read).
    template <class In>
    requires Element<std::remove_const_t<In>>
    void accumulate(MatrixView<In> inputs, std::span<const float> weights = {}) {
        add(Batch<std::remove_const_t<In>>{read_only(inputs), {}, {}}, weights);
    }

    /// Adds a batch of inputs x and reference inputs x_fp, both (tokens, in_features), to H and D.
    template <class In, class Ref>
    requires Element<std::remove_const_t<In>> &&
        std::same_as<std::remove_const_t<In>, std::remove_const_t<Ref>>
    void accumulate(MatrixView<In> inputs, MatrixView<Ref> references, std::span<const float> weights = {}) {
        add(Batch<std::remove_const_t<In>>{read_only(inputs), read_only(references), {}}, weights);
    }

    /// The same, and the residual stream that the layer writes to, of the same tokens, to D_h.
    template <class In, class Ref>
    requires Element<std::remove_const_t<In>> &&
        std::same_as<std::remove_const_t<In>, std::remove_const_t<Ref>>
    void accumulate(MatrixView<In> inputs, MatrixView<Ref> references,
                    const ResidualStream<std::remove_const_t<In>>& stream,
                    std::span<const float> weights = {}) {
        add(Batch<std::remove_const_t<In>>{read_only(inputs), read_only(references), stream}, weights);
    }

    /// H and D_h alone, for methods that do not read D.
    template <class In>
    requires Element<std::remove_const_t<In>>
    void accumulate(MatrixView<In> inputs, const ResidualStream<std::remove_const_t<In>>& stream,
                    std::span<const float> weights = {}) {
        add(Batch<std::remove_const_t<In>>{read_only(inputs), {}, stream}, weights);
    }

    /// Adds the sums of `other`, which must be of the same sizes and kind (both with or both without reference
    /// inputs, and the same of the residual stream, unless one of them is still empty). Throws
    /// std::invalid_argument where they are not, or where a solver has used up the memory of one of them.
    void merge(const Moments& other) {
        require_memory("Moments::merge: this was");
        other.require_memory("Moments::merge: other was");
        require(other.n_ == n_, "Moments::merge: other.in_features is", other.n_,
                std::to_string(n_) + ", the in_features of this");
        if (other.tokens_ == 0) return;
        require(other.tokens_ <= most_tokens - tokens_, "Moments::merge: other.tokens is", other.tokens_,
                "at most 2^53 together with those of this");
        require(tokens_ == 0 || has_reference() == other.has_reference(),
                "Moments::merge: other's reference inputs are", other.has_reference() ? "given" : "absent",
                has_reference() ? "given, as in this" : "absent, as in this");
        require(tokens_ == 0 || has_residual_stream() == other.has_residual_stream(),
                "Moments::merge: other's residual stream is",
                other.has_residual_stream() ? "given" : "absent",
                has_residual_stream() ? "given, as in this" : "absent, as in this");
        const Index width = other.stream_cross_.rows();
        require(tokens_ == 0 || stream_cross_.rows() == width,
                "Moments::merge: other's residual stream has columns:", width,
                std::to_string(stream_cross_.rows()) + ", as in this");
        update([&] {
            backend_->add(std::as_const(other.gram_).view(), gram_.view());
            merge(other.cross_, cross_);
            merge(other.stream_cross_, stream_cross_);
        });
        tokens_ += other.tokens_;
    }

    /// Which sums there are beside H.
    struct Kind {
        bool reference = false;  ///< D
        Index stream_width = 0;  ///< rows of D_h; 0: there is none

        friend bool operator==(const Kind&, const Kind&) = default;
    };
    Kind kind() const { return {has_reference(), stream_cross_.rows()}; }

    /// Hands H, D and D_h to `change`, which puts sums over other batches in their place by means of its own, as
    /// those of several devices or processes: change(H, D, D_h). Of H the upper triangle counts; the others are
    /// empty unless `kind` has them, and 0 where no batch had. `tokens`: of the sums afterwards.
    template <class Change>
    void replace(Index tokens, const Kind& kind, Change change) {
        require_memory("Moments::replace: the moments were");
        require(tokens >= 0 && tokens <= most_tokens, "Moments::replace: tokens is", tokens, "0 to 2^53");
        require(kind.stream_width >= 0 && detail::product_fits(kind.stream_width, n_, sizeof(T)),
                "Moments::replace: kind.stream_width is", kind.stream_width,
                "at least 0, of a matrix of fewer than 2^63 bytes");
        require(tokens_ == 0 || kind == this->kind(), "Moments::replace: kind is", "another one",
                "that of the batches before");
        update([&] {
            if (cross_.rows() != (kind.reference ? n_ : 0)) cross_ = zeros(kind.reference ? n_ : 0);
            if (stream_cross_.rows() != kind.stream_width) stream_cross_ = zeros(kind.stream_width);
            change(gram_.view(), cross_.view(), stream_cross_.view());
        });
        tokens_ = tokens;
    }

    /// H, both triangles, where the backend keeps it; an empty view where a solver has used it up. Throws
    /// std::invalid_argument where an error has left the sums incomplete, as all that reads them does.
    MatrixView<const T> gram() const {
        require_complete("Moments::gram: the moments were");
        if (!has_memory()) return {};
        const std::lock_guard lock(mutex());
        return mirrored_gram();
    }

    /// D, or an empty view.
    MatrixView<const T> cross() const {
        require_complete("Moments::cross: the moments were");
        return std::as_const(cross_).view();
    }

    /// D_h, (out_features, in_features), or an empty view.
    MatrixView<const T> stream_cross() const {
        require_complete("Moments::stream_cross: the moments were");
        return std::as_const(stream_cross_).view();
    }

    /// H as R R', made at the first call and kept until the moments change or another key is asked for.
    /// `cholesky`, if given, computes R, see Factorization.
    std::shared_ptr<const Factorization<T, B>> factorization(const FactorizationKey& key,
                                                             const CholeskyStep<T>& cholesky = {}) const {
        require_memory("Moments::factorization: the moments were");
        const std::lock_guard lock(mutex());
        if (!state_->factorization || !(state_->key == key)) {
            state_->factorization.reset();  // before the next one takes its memory
            state_->factorization = std::make_shared<const Factorization<T, B>>(
                *backend_, mirrored_gram(), cross(), key, stream_cross(), cholesky);
            state_->key = key;
        }
        return state_->factorization;
    }

    /// Whether factorization(key) costs nothing.
    bool has_factorization(const FactorizationKey& key) const {
        if (!has_memory()) return false;
        const std::lock_guard lock(mutex());
        return state_->factorization && state_->key == key;
    }

    /// H as R R' in the memory of the moments, which are empty afterwards.
    std::shared_ptr<const Factorization<T, B>> consume(const FactorizationKey& key) {
        require_memory("Moments::consume: the moments were");
        mirrored_gram();
        forget_factorization();
        tokens_ = 0;
        return std::make_shared<const Factorization<T, B>>(*backend_, std::move(gram_), std::move(cross_),
                                                           key, std::move(stream_cross_));
    }

    /// Frees the memory of the factorization; the next solve makes it anew.
    void forget_factorization() const {
        if (!state_) return;
        const std::lock_guard lock(mutex());
        state_->factorization.reset();
    }

  private:
    using Matrix = typename B::template Matrix<T>;

    template <class In>
    struct Batch {
        MatrixView<const In> x;
        std::optional<MatrixView<const In>> x_fp;
        std::optional<ResidualStream<In>> stream;
    };
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

    /// Lets `add` change the sums. Where it throws they are incomplete, and stay so.
    template <class Add>
    void update(Add add) {
        state_->factorization.reset();
        mirrored_ = false;
        incomplete_ = true;
        add();
        incomplete_ = false;
    }

    template <class In>
    void add(const Batch<In>& batch, std::span<const float> weights) {
        const auto& [x, x_fp, stream] = batch;
        check("x", x, x.rows, n_);
        if (x_fp) check("x_fp", *x_fp, x.rows, n_);
        if (stream) {
            const Index width = has_residual_stream() ? stream_cross_.rows() : stream->h.cols;
            require(width >= 1, "Moments::accumulate: h.cols is", width, "at least 1");
            check("h", stream->h, x.rows, width, "out_features");
            check("h_fp", stream->h_fp, x.rows, width, "out_features");
        }
        const Index counted = count(x.rows, weights);
        check_kind("x_fp", x_fp.has_value(), has_reference(), "reference inputs");
        check_kind("the residual stream", stream.has_value(), has_residual_stream(), "given");
        update([&] {
            if (batch.x_fp && !has_reference()) cross_ = zeros(n_);
            if (batch.stream && !has_residual_stream()) stream_cross_ = zeros(batch.stream->h.cols);
            backend_->accumulate_gram(batch.x, weights, gram_.view());
            if (batch.x_fp) backend_->accumulate_cross(batch.x, *batch.x_fp, batch.x, weights, cross_.view());
            if (batch.stream)
                backend_->accumulate_cross(batch.stream->h, batch.stream->h_fp, batch.x, weights,
                                           stream_cross_.view());
        });
        tokens_ += counted;
    }

    /// Adds sums of which there may be none; what batches without a token left in `to` is of no account.
    void merge(const Matrix& from, Matrix& to) {
        if (from.rows() != to.rows()) to = zeros(from.rows());
        if (from.rows() > 0) backend_->add(from.view(), to.view());
    }

    /// (rows, in_features); nothing for no rows
    Matrix zeros(Index rows) const {
        if (rows == 0) return {};
        Matrix matrix = backend_->template workspace<T>(rows, n_);
        backend_->set_zero(matrix.view());
        return matrix;
    }

    void write(MatrixView<const T> source, Matrix& target) {
        std::vector<T> values;
        for (Index i = 0; i < source.rows; ++i)
            values.insert(values.end(), source.row(i), source.row(i) + source.cols);
        backend_->write(values, target.view());
    }

    template <class In>
    void check(const char* name, MatrixView<const In> x, Index tokens, Index cols,
               const char* meaning = "in_features") const {
        require_memory("Moments::accumulate: the moments were");
        const std::string what = std::string("Moments::accumulate: ") + name;
        detail::require_matrix(what, x, cols, meaning);
        require(x.rows == tokens, what + " has rows:", x.rows, std::to_string(tokens) + " (tokens of x)");
    }

    /// That all batches with tokens have the same.
    void check_kind(const char* name, bool given, bool before, const char* expected) const {
        require(given || !before, std::string("Moments::accumulate: ") + name + " is", "absent",
                std::string(expected) + ", as in the batches before");
        require(before || !given || tokens_ == 0, std::string("Moments::accumulate: ") + name + " is",
                "given", "absent, as in the batches before");
    }

    bool has_memory() const { return state_ && gram_.rows() == n_; }

    void require_memory(const char* what) const {
        require(has_memory(), what, state_ ? "used up by a solver" : "moved from",
                "moments with their memory");
        require_complete(what);
    }

    void require_complete(const char* what) const {
        require(!incomplete_, what, "left incomplete by an error", "moments whose every batch was added");
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
    mutable Matrix gram_;
    Matrix cross_;
    Matrix stream_cross_;
    mutable bool mirrored_ = false;
    bool incomplete_ = false;  // a backend failed while it added to them
    std::unique_ptr<State> state_ = std::make_unique<State>();
};

}  // namespace residua
