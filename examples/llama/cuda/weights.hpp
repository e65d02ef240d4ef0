#pragma once

#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "convert.cuh"
#include "tensors.hpp"

namespace llama::cuda {

using residua::CudaBackend;
using residua::DeviceMatrix;
using residua::MatrixView;

/// `later` goes on when all that `earlier` has been given so far is done.
inline void order(cudaStream_t earlier, cudaStream_t later) {
    using residua::detail::cuda::check;
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    const cudaError_t recorded = cudaEventRecord(event, earlier);
    const cudaError_t waits = cudaStreamWaitEvent(later, event, 0);
    cudaEventDestroy(event);
    check(recorded, "cudaEventRecord");
    check(waits, "cudaStreamWaitEvent");
}

inline int current_device() {
    int device = 0;
    residua::detail::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
    return device;
}

/// A tensor in device memory as its source has it, and in the types that computations ask for.
class DeviceTensor {
  public:
    DeviceTensor() = default;
    DeviceTensor(CudaBackend& gpu, const TensorSource& source, std::string name, Index rows, Index cols)
        : name_(std::move(name)),
          rows_(rows),
          cols_(cols),
          type_(source.dtype(name_)),
          bytes_(gpu.allocate<residua::Code>(1, rows * cols * Index(residua::io::size_of(type_)))) {}

    void fetch(const TensorSource& source, cudaStream_t stream) {
        source.fetch(name_, rows_ * cols_, bytes_.view().data, stream);
    }

    bool is_empty() const { return rows_ == 0; }

    /// The values as they are.
    DeviceMatrix<float> exact(CudaBackend& gpu) const { return as<float>(gpu); }

    /// Rounded to bfloat16, in the place of what the source has.
    void narrow(CudaBackend& gpu) {
        if (type_ == DType::BF16) return;
        DeviceMatrix<bfloat16> values = as<bfloat16>(gpu);
        narrow_ = std::move(values);
    }

    /// (rows, cols), rounded to bfloat16: after narrow().
    MatrixView<const bfloat16> view() const {
        if (type_ != DType::BF16) return narrow_.view();
        return {reinterpret_cast<const bfloat16*>(bytes_.view().data), rows_, cols_};
    }

  private:
    template <class To>
    DeviceMatrix<To> as(CudaBackend& gpu) const {
        auto values = gpu.allocate<To>(rows_, cols_);
        const void* from = bytes_.view().data;
        const auto convert_from = [&]<class From>(const From* data) {
            convert(gpu.stream(), data, rows_ * cols_, values.view().data);
        };
        switch (type_) {
            case DType::F32:
                convert_from(static_cast<const float*>(from));
                break;
            case DType::F16:
                convert_from(static_cast<const residua::float16*>(from));
                break;
            default:
                convert_from(static_cast<const bfloat16*>(from));
        }
        return values;
    }

    std::string name_;
    Index rows_ = 0, cols_ = 0;
    DType type_ = DType::BF16;
    DeviceMatrix<residua::Code> bytes_;
    DeviceMatrix<bfloat16> narrow_;  // where the source has another type
};

/// Fetches a tensor and waits for it.
inline DeviceTensor fetch_tensor(CudaBackend& gpu, const TensorSource& source, const std::string& name,
                                 Index rows, Index cols) {
    DeviceTensor tensor(gpu, source, name, rows, cols);
    tensor.fetch(source, gpu.stream());
    tensor.narrow(gpu);
    return tensor;
}

/// One block: of each linear layer the weights and the bias, in the order of layers_of(), and the norms.
struct DeviceBlock {
    struct Layer {
        DeviceTensor weight;
        DeviceMatrix<float> bias;  ///< (1, out), or empty
    };
    std::vector<Layer> layers;
    DeviceMatrix<float> attention_norm, mlp_norm;  ///< (1, hidden)
    DeviceMatrix<float> query_norm, key_norm;      ///< (1, head_size), or empty
};

/// Brings one block after the other to the device. The next one comes on a stream of its own, by a thread of its own,
/// while the device works on the one before.
class BlockLoader {
  public:
    /// All must outlive the loader.
    BlockLoader(CudaBackend& gpu, const Config& config, const TensorSource& source)
        : gpu_(gpu),
          layers_(layers_of(config, 0)),
          norms_(norms_of(config)),
          blocks_(config.blocks),
          source_(source),
          stream_(residua::detail::cuda::create_stream()) {}

    /// Block `block`; the one behind it is on its way then.
    DeviceBlock take(Index block) {
        if (!coming_ || coming_->number != block) start(block);
        coming_->arrival.get();
        order(stream_.get(), gpu_.stream());
        DeviceBlock arrived = finish(*coming_);
        coming_.reset();
        if (block + 1 < blocks_) start(block + 1);
        return arrived;
    }

  private:
    struct Coming {
        Index number = 0;
        std::vector<DeviceTensor> tensors = {};  // for each layer its weights and its bias, then the norms
        std::future<void> arrival = {};          // the last member: memory is freed when all has arrived
    };

    void start(Index block) {
        coming_.reset();
        Coming& coming = coming_.emplace(Coming{.number = block});
        const std::string prefix = block_prefix(block);
        for (const LayerSpec& layer : layers_) {
            coming.tensors.emplace_back(gpu_, source_, prefix + layer.name + ".weight", layer.out, layer.in);
            const std::string bias = prefix + layer.name + ".bias";
            coming.tensors.push_back(source_.contains(bias) ? DeviceTensor(gpu_, source_, bias, 1, layer.out)
                                                            : DeviceTensor());
        }
        for (const NormSpec& norm : norms_)
            coming.tensors.emplace_back(gpu_, source_, prefix + norm.name + ".weight", 1, norm.size);
        order(gpu_.stream(), stream_.get());  // the memory may have been freed by work that is not done yet
        coming.arrival = std::async(std::launch::async, [this, &coming, device = current_device()] {
            residua::detail::cuda::check(cudaSetDevice(device), "cudaSetDevice");
            for (DeviceTensor& tensor : coming.tensors)
                if (!tensor.is_empty()) tensor.fetch(source_, stream_.get());
            residua::detail::cuda::check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
        });
    }

    DeviceBlock finish(Coming& coming) {
        DeviceBlock block;
        auto tensor = coming.tensors.begin();
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            DeviceBlock::Layer& layer = block.layers.emplace_back();
            layer.weight = std::move(*tensor++);
            layer.weight.narrow(gpu_);
            if (!tensor->is_empty()) layer.bias = tensor->exact(gpu_);
            ++tensor;
        }
        for (const NormSpec& norm : norms_) {
            DeviceMatrix<float>& to = norm.norm == &Block::attention_norm ? block.attention_norm
                                      : norm.norm == &Block::mlp_norm     ? block.mlp_norm
                                      : norm.norm == &Block::query_norm   ? block.query_norm
                                                                          : block.key_norm;
            to = (*tensor++).exact(gpu_);
        }
        return block;
    }

    CudaBackend& gpu_;
    std::vector<LayerSpec> layers_;
    std::vector<NormSpec> norms_;
    Index blocks_;
    const TensorSource& source_;
    residua::detail::cuda::Stream stream_;
    std::optional<Coming> coming_;
};

}  // namespace llama::cuda
