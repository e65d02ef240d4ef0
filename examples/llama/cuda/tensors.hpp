#pragma once

#include <residua/cuda.hpp>
#include <residua/io.hpp>
#include <string>
#include <unordered_map>

#include "../model.hpp"

namespace llama::cuda {

using residua::io::DType;

/// The tensors of a model by the names that checkpoints give them, wherever they come from.
///
/// All calls may come from several threads at a time.
class TensorSource {
  public:
    virtual ~TensorSource() = default;

    virtual bool contains(const std::string& name) const = 0;

    /// What fetch() brings: F32, F16 or BF16.
    virtual DType dtype(const std::string& name) const = 0;

    /// Copies the tensor, of so many elements, to device memory, in the order of `stream`. Host memory has been read when
    /// this returns. Throws std::invalid_argument where it has another number of elements.
    virtual void fetch(const std::string& name, Index elements, void* to, cudaStream_t stream) const = 0;

  protected:
    static void copy_from_host(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
        residua::detail::cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream),
                                     "cudaMemcpyAsync");
    }
    static void check_size(const std::string& where, const std::string& name, Index found, Index wanted) {
        residua::require(found == wanted, where + ": elements of " + name + ":", found,
                         std::to_string(wanted) + " by config.json");
    }
};

/// Those of a checkpoint of Hugging Face's layout, from its mapped files.
class FileTensors : public TensorSource {
  public:
    explicit FileTensors(const std::filesystem::path& folder) : file_(folder) {}

    bool contains(const std::string& name) const override { return file_.contains(name); }

    DType dtype(const std::string& name) const override {
        const DType type = file_.info(name).dtype;
        return type == DType::F16 || type == DType::BF16 ? type : DType::F32;
    }

    void fetch(const std::string& name, Index elements, void* to, cudaStream_t stream) const override {
        const residua::io::TensorInfo& tensor = file_.info(name);
        check_size(file_.source(), name, tensor.elements(), elements);
        if (tensor.dtype == dtype(name))
            return copy_from_host(to, tensor.bytes.data(), tensor.bytes.size(), stream);
        const std::vector<float> values = file_.read<float>(name);
        copy_from_host(to, values.data(), values.size() * sizeof(float), stream);
    }

  private:
    residua::io::SafetensorsCheckpoint file_;
};

/// Those of a model in host memory, which must outlive this.
class ModelTensors : public TensorSource {
  public:
    explicit ModelTensors(const Model& model) {
        add("model.embed_tokens.weight", model.embedding);
        add("model.norm.weight", model.norm);
        if (!model.config.tied_head) add("lm_head.weight", model.head);
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            const Block& block = model.blocks[i];
            const std::string prefix = block_prefix(Index(i));
            for (const NormSpec& norm : norms_of(model.config))
                add(prefix + norm.name + ".weight", block.*norm.norm);
            for (const BlockLayer& layer : block.layers) {
                add(prefix + layer.spec.name + ".weight", layer.linear.weight);
                if (layer.linear.bias.size() > 0) add(prefix + layer.spec.name + ".bias", layer.linear.bias);
            }
        }
    }

    bool contains(const std::string& name) const override { return values_.contains(name); }
    DType dtype(const std::string&) const override { return DType::F32; }
    void fetch(const std::string& name, Index elements, void* to, cudaStream_t stream) const override {
        const std::span<const float> values = values_.at(name);
        check_size("ModelTensors", name, Index(values.size()), elements);
        copy_from_host(to, values.data(), values.size_bytes(), stream);
    }

  private:
    template <class Values>
    void add(const std::string& name, const Values& values) {
        values_[name] = {values.data(), std::size_t(values.size())};
    }

    std::unordered_map<std::string, std::span<const float>> values_;
};

}  // namespace llama::cuda
