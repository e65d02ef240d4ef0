#pragma once

#include <array>
#include <optional>
#include <span>

#include "../runner.hpp"
#include "attention.cuh"
#include "elementwise.cuh"
#include "norm.cuh"
#include "rotary.cuh"
#include "round_activations.cuh"
#include "weights.hpp"

namespace llama::cuda {

/// Windows of tokens in device memory, one behind the other.
class DeviceWindows {
  public:
    DeviceWindows(CudaBackend& gpu, std::span<const std::vector<Token>> windows) {
        std::vector<std::int32_t> tokens, positions, starts{0};
        for (const auto& window : windows) {
            tokens.insert(tokens.end(), window.begin(), window.end());
            for (std::size_t t = 0; t < window.size(); ++t) positions.push_back(std::int32_t(t));
            starts.push_back(std::int32_t(tokens.size()));
        }
        starts_.assign(starts.begin(), starts.end());
        tokens.push_back(0);  // so that each token has one behind it
        device_tokens_ = upload(gpu, tokens);
        device_positions_ = upload(gpu, positions);
        device_starts_ = upload(gpu, starts);
    }

    Index count() const { return Index(starts_.size()) - 1; }
    Index tokens() const { return starts_.back(); }
    Index start(Index window) const { return starts_[std::size_t(window)]; }

    const std::int32_t* token_data() const { return device_tokens_.view().data; }
    const std::int32_t* position_data() const { return device_positions_.view().data; }
    const std::int32_t* start_data() const { return device_starts_.view().data; }

    /// body(first, last) for runs of windows, of at most so many tokens unless a window has more.
    template <class Body>
    void for_runs(Index most_tokens, Body body) const {
        for (Index first = 0; first < count();) {
            Index last = first + 1;
            while (last < count() && start(last + 1) - start(first) <= most_tokens) ++last;
            body(first, last);
            first = last;
        }
    }

  private:
    static DeviceMatrix<std::int32_t> upload(CudaBackend& gpu, const std::vector<std::int32_t>& values) {
        auto copy = gpu.allocate<std::int32_t>(1, Index(values.size()));
        gpu.write(values, copy.view());
        return copy;
    }

    std::vector<Index> starts_;
    DeviceMatrix<std::int32_t> device_tokens_, device_positions_, device_starts_;
};

/// All windows on their way through a block, see llama::Activations.
struct DeviceActivations {
    DeviceMatrix<float> residual;       ///< (tokens, hidden)
    DeviceMatrix<bfloat16> input = {};  ///< of the linear layers that come next
};

/// Weights of a block's linear layers, in the order of layers_of(): as they are, or quantized.
using BlockWeights = std::vector<MatrixView<const bfloat16>>;

/// llama::Runner on the device, for all windows at once: weights and inputs of linear layers in bfloat16, their sums
/// and the residual stream in float. Memory besides the activations is bounded by a run of windows.
class DeviceRunner {
  public:
    /// `gpu` must outlive the runner. Throws what require_supported() throws.
    DeviceRunner(CudaBackend& gpu, const Config& config, Index positions,
                 const ActivationSettings& settings = {})
        : gpu_(gpu),
          config_(config),
          settings_(settings),
          rotary_(gpu, RotaryEmbedding(config.rotary, config.head_size, positions), config.head_size) {
        require_supported(config, positions);
        const std::vector<LayerSpec> layers = layers_of(config, 0);  // the same in every block
        for (std::size_t i = 0; i < layers.size(); ++i) at_[std::size_t(layers[i].role)] = i;
        if (!config.online_hadamard) return;
        const OnlineRotations rotations(config);
        output_.emplace(gpu, rotations.output);
        down_.emplace(gpu, rotations.down);
        head_.emplace(gpu, rotations.head);
    }

    const Config& config() const { return config_; }

    DeviceActivations embed(MatrixView<const bfloat16> embedding, const DeviceWindows& windows) const {
        DeviceActivations a{.residual = gpu_.allocate<float>(windows.tokens(), config_.hidden)};
        for_eights(gpu_.stream(), windows.tokens(), config_.hidden,
                   Gather{embedding, windows.token_data(), a.residual.view()});
        return a;
    }

    /// From the residual stream to the input of the block's first linear layers.
    void enter(const DeviceBlock& block, DeviceActivations& a) const { norm(block.attention_norm, a); }

    /// Through the linear layers that read `input`, to the next input or, after the last, out of the block.
    void advance(Input input, const DeviceBlock& block, const BlockWeights& weights,
                 const DeviceWindows& windows, DeviceActivations& a) const {
        switch (input) {
            case Input::Attention:
                return attend(block, weights, windows, a);
            case Input::Output:
                add(Role::Output, block, weights, a);
                return norm(block.mlp_norm, a);
            case Input::Mlp:
                return gate(block, weights, a);
            case Input::Down:
                add(Role::Down, block, weights, a);
                a.input = {};
        }
    }

    void run(const DeviceBlock& block, const BlockWeights& weights, const DeviceWindows& windows,
             DeviceActivations& a) const {
        enter(block, a);
        for (const Input input : inputs) advance(input, block, weights, windows, a);
    }

    /// From the residual stream through the last norm, of weights (1, hidden), to what the output layer reads.
    void leave(const DeviceMatrix<float>& weights, DeviceActivations& a) const {
        fit_input(a, config_.hidden);
        rms_norm(gpu_.stream(), a.residual.view(), weights, a.input.view());
    }

    /// Y = X W' + beta Y for X (tokens, in), W (out, in); Y in bfloat16 or float.
    template <class Out>
    void multiply(MatrixView<const bfloat16> x, MatrixView<const bfloat16> w, MatrixView<Out> y,
                  float beta = 0) const {
        constexpr cudaDataType type = std::is_same_v<Out, float> ? CUDA_R_32F : CUDA_R_16BF;
        if (x.rows == 0) return;
        const float one = 1;
        residua::detail::cuda::check(
            cublasGemmEx(gpu_.blas(), CUBLAS_OP_T, CUBLAS_OP_N, int(w.rows), int(x.rows), int(x.cols), &one,
                         w.data, CUDA_R_16BF, int(w.stride), x.data, CUDA_R_16BF, int(x.stride), &beta,
                         y.data, type, int(y.stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            "cublasGemmEx");
    }

    /// The same with the bias of a layer, which may be empty.
    template <class Out>
    void apply(const DeviceMatrix<float>& bias, MatrixView<const bfloat16> x, MatrixView<const bfloat16> w,
               MatrixView<Out> y, float beta = 0) const {
        multiply(x, w, y, beta);
        if (bias.size() > 0) for_eights(gpu_.stream(), y.rows, y.cols, AddBias<Out>{y, bias.view().data});
    }

  private:
    static constexpr Index run_tokens = 32768;

    void rms_norm(cudaStream_t stream, MatrixView<const float> x, const DeviceMatrix<float>& weights,
                  MatrixView<bfloat16> y) const {
        cuda::rms_norm(stream, x, weights.view().data, config_.norm_epsilon, y);
    }

    void norm(const DeviceMatrix<float>& weights, DeviceActivations& a) const {
        leave(weights, a);
        round_input(a.input.view());
    }

    void fit_input(DeviceActivations& a, Index width) const {
        if (a.input.rows() != a.residual.rows() || a.input.cols() != width)
            a.input = gpu_.allocate<bfloat16>(a.residual.rows(), width);
    }

    void round_input(MatrixView<bfloat16> x) const {
        if (settings_.inputs) round_activations(gpu_.stream(), *settings_.inputs, x);
    }

    MatrixView<const bfloat16> weight(Role role, const BlockWeights& weights) const {
        return weights[at_[std::size_t(role)]];
    }

    void layer(Role role, const DeviceBlock& block, const BlockWeights& weights, MatrixView<const bfloat16> x,
               MatrixView<bfloat16> y) const {
        apply(block.layers[at_[std::size_t(role)]].bias, x, weight(role, weights), y);
    }

    /// The residual stream takes up what a layer puts out.
    void add(Role role, const DeviceBlock& block, const BlockWeights& weights, DeviceActivations& a) const {
        apply(block.layers[at_[std::size_t(role)]].bias, std::as_const(a.input).view(), weight(role, weights),
              a.residual.view(), 1.0f);
    }

    void attend(const DeviceBlock& block, const BlockWeights& weights, const DeviceWindows& windows,
                DeviceActivations& a) const {
        auto all = gpu_.allocate<bfloat16>(a.residual.rows(), config_.query_size());
        windows.for_runs(run_tokens, [&](Index first, Index last) {
            const Index start = windows.start(first);
            const Index count = windows.start(last) - start;
            const auto x = std::as_const(a.input).view().row_range(start, count);
            auto q = gpu_.allocate<bfloat16>(count, config_.query_size());
            auto k = gpu_.allocate<bfloat16>(count, config_.key_value_size());
            auto v = gpu_.allocate<bfloat16>(count, config_.key_value_size());
            layer(Role::Query, block, weights, x, q.view());
            layer(Role::Key, block, weights, x, k.view());
            layer(Role::Value, block, weights, x, v.view());
            norm_heads(block.query_norm, q);
            norm_heads(block.key_norm, k);
            rotary_.apply(gpu_.stream(), q.view(), windows.position_data() + start);
            rotary_.apply(gpu_.stream(), k.view(), windows.position_data() + start);
            round_cache(q, k, v);

            // Windows start at tokens of all of them.
            const auto from_all = [&](auto view) {
                view.data -= start * view.stride;
                return view;
            };
            Index longest = 0;
            for (Index w = first; w < last; ++w)
                longest = std::max(longest, windows.start(w + 1) - windows.start(w));
            attention(gpu_.stream(),
                      {.q = from_all(std::as_const(q).view()),
                       .k = from_all(std::as_const(k).view()),
                       .v = from_all(std::as_const(v).view()),
                       .context = all.view(),
                       .starts = windows.start_data() + first,
                       .size = int(config_.head_size),
                       .heads_per_key = int(config_.heads / config_.key_value_heads)},
                      last - first, longest);
        });
        if (output_) output_->apply(std::as_const(all).view(), all.view());
        a.input = std::move(all);
        round_input(a.input.view());
    }

    /// Each head of each token on its own: the rows of a (tokens * heads, head_size) view.
    MatrixView<bfloat16> heads(DeviceMatrix<bfloat16>& x) const {
        return {x.view().data, x.size() / config_.head_size, config_.head_size};
    }

    void norm_heads(const DeviceMatrix<float>& weights, DeviceMatrix<bfloat16>& x) const {
        if (weights.size() > 0)
            cuda::rms_norm(gpu_.stream(), residua::read_only(heads(x)), weights.view().data,
                           config_.norm_epsilon, heads(x));
    }

    void round_cache(DeviceMatrix<bfloat16>& q, DeviceMatrix<bfloat16>& k, DeviceMatrix<bfloat16>& v) const {
        if (!settings_.cache) return;
        if (head_) {  // the same rotation of q and k leaves their products as they are
            head_->apply(residua::read_only(heads(q)), heads(q));
            head_->apply(residua::read_only(heads(k)), heads(k));
        }
        round_activations(gpu_.stream(), *settings_.cache, heads(k));
        round_activations(gpu_.stream(), *settings_.cache, heads(v));
    }

    void gate(const DeviceBlock& block, const BlockWeights& weights, DeviceActivations& a) const {
        const Index tokens = a.residual.rows();
        auto all = gpu_.allocate<bfloat16>(tokens, config_.intermediate);
        auto up = gpu_.allocate<bfloat16>(std::min(tokens, run_tokens), config_.intermediate);
        for (Index start = 0; start < tokens; start += run_tokens) {
            const Index count = std::min(run_tokens, tokens - start);
            const auto x = std::as_const(a.input).view().row_range(start, count);
            const auto g = all.view().row_range(start, count);
            const auto u = up.view().row_range(0, count);
            layer(Role::Gate, block, weights, x, g);
            layer(Role::Up, block, weights, x, u);
            for_eights(gpu_.stream(), count, config_.intermediate, SwiGLU{g, u});
            if (down_) down_->apply(residua::read_only(g), g);
        }
        a.input = std::move(all);
        round_input(a.input.view());
    }

    CudaBackend& gpu_;
    Config config_;
    ActivationSettings settings_;
    Rotary rotary_;
    std::array<std::size_t, 7> at_ = {};                         // of each role, among a block's layers
    std::optional<residua::CudaHadamard> output_, down_, head_;  // with Config::online_hadamard
};

}  // namespace llama::cuda
