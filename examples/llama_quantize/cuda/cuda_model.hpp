#pragma once

#include "../../llama/cuda/perplexity.hpp"
#include "../group_solver.hpp"
#include "../output.hpp"

/// Quantized layers where the device has them.
using DeviceQuantized = GroupSolver<residua::CudaBackend>::Quantized;

inline DeviceQuantized to_device(residua::CudaBackend& gpu,
                                 const residua::QuantizedLayer<residua::IntegerGrid>& layer) {
    DeviceQuantized q{.codes = gpu.allocate<residua::Code>(layer.rows, layer.cols),
                      .scales = gpu.allocate<float>(layer.rows, layer.groups),
                      .zeros = gpu.allocate<float>(layer.rows, layer.groups),
                      .group_index = layer.group_index,
                      .grid = layer.grid};
    gpu.write(layer.codes, q.codes.view());
    gpu.write(layer.scales, q.scales.view());
    gpu.write(layer.zeros, q.zeros.view());
    return q;
}

/// What a layer stands for, rounded to bfloat16.
inline residua::DeviceMatrix<residua::bfloat16> dequantized(residua::CudaBackend& gpu,
                                                            const DeviceQuantized& q) {
    auto weights = gpu.allocate<residua::bfloat16>(q.codes.rows(), q.codes.cols());
    auto groups = gpu.allocate<std::int32_t>(1, q.codes.cols());
    gpu.write(q.group_index, groups.view());
    llama::cuda::dequantize(gpu.stream(),
                            {q.codes.view(), q.scales.view(), q.zeros.view(), groups.view().data, q.grid},
                            weights.view());
    return weights;
}

/// A model whose blocks pass through the device one at a time. What stays there are the embedding, the last norm and
/// the output layer; what stays in host memory are the codes of blocks that have been quantized.
class CudaModel {
  public:
    using BlockInHost = std::shared_future<std::shared_ptr<const QuantizedBlock>>;

    /// `source` has the tensors, and `model` the configuration and the last norm.
    CudaModel(std::shared_ptr<llama::Model> model, std::unique_ptr<llama::cuda::TensorSource> source,
              const SolveSettings& settings, Ranks& ranks, const Cooperation& cooperation)
        : model_(std::move(model)), source_(std::move(source)), solver_(settings, ranks, cooperation) {
        const llama::Config& c = config();
        embedding_ =
            llama::cuda::fetch_tensor(gpu(), *source_, "model.embed_tokens.weight", c.vocabulary, c.hidden);
        if (!c.tied_head)
            head_ = llama::cuda::fetch_tensor(gpu(), *source_, "lm_head.weight", c.vocabulary, c.hidden);
        norm_ = gpu().allocate<float>(1, c.hidden);
        upload_norm();
    }

    residua::CudaBackend& gpu() { return solver_.backend(); }
    GroupSolver<residua::CudaBackend>& solver() { return solver_; }
    const llama::Config& config() const { return model_->config; }
    const llama::Model& host() const { return *model_; }
    const llama::cuda::TensorSource& source() const { return *source_; }
    residua::MatrixView<const residua::bfloat16> embedding() const { return embedding_.view(); }
    const llama::cuda::DeviceTensor& head() const { return config().tied_head ? embedding_ : head_; }
    const residua::DeviceMatrix<float>& norm() const { return norm_; }

    void scale_norm(const std::vector<float>& gains) {
        model_->norm.array() *= Eigen::Map<const llama::Vector>(gains.data(), model_->norm.size()).array();
        upload_norm();
    }

    /// In place of a block's weights from now on. Blocks come in ascending order.
    void set_quantized(residua::Index block, BlockInHost layers) {
        quantized_.resize(std::size_t(block));
        quantized_.push_back(std::move(layers));
    }

    /// Over all windows, with the blocks that have been quantized.
    llama::Loss loss(const llama::Windows& windows, const llama::ActivationSettings& activations) {
        const llama::cuda::DeviceWindows on_device(gpu(), windows);
        const llama::cuda::DeviceRunner runner(gpu(), config(), llama::longest(windows), activations);
        llama::cuda::DeviceActivations a = runner.embed(embedding(), on_device);
        llama::cuda::BlockLoader loader(gpu(), config(), source());
        for (residua::Index i = 0; i < config().blocks; ++i) {
            const llama::cuda::DeviceBlock block = loader.take(i);
            llama::cuda::BlockWeights weights;
            std::vector<residua::DeviceMatrix<residua::bfloat16>> quantized;
            if (std::size_t(i) < quantized_.size()) {
                for (const auto& layer : *quantized_[std::size_t(i)].get()) {
                    quantized.push_back(dequantized(gpu(), to_device(gpu(), layer.integers)));
                    weights.push_back(std::as_const(quantized.back()).view());
                }
            } else {
                for (const auto& layer : block.layers) weights.push_back(layer.weight.view());
            }
            runner.run(block, weights, on_device, a);
        }
        runner.leave(norm_, a);
        return llama::cuda::loss(gpu(), runner, head().view(), on_device, a);
    }

  private:
    void upload_norm() {
        const llama::Vector& norm = model_->norm;
        gpu().write(std::vector<float>(norm.data(), norm.data() + norm.size()), norm_.view());
    }

    std::shared_ptr<llama::Model> model_;
    std::unique_ptr<llama::cuda::TensorSource> source_;
    GroupSolver<residua::CudaBackend> solver_;
    llama::cuda::DeviceTensor embedding_, head_;
    residua::DeviceMatrix<float> norm_;
    std::vector<BlockInHost> quantized_;
};
