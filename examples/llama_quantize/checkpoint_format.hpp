#pragma once

#include <residua/backends/host/executor.hpp>
#include <variant>

#include "output.hpp"

/// The compressed-tensors format pack-quantized.
struct PackQuantized {
    residua::IntegerGrid grid;
    residua::Index group_size;  ///< or SolverOptions::per_channel
};

/// How the linear layers of a checkpoint are stored, and what config.json says of it.
class CheckpointFormat {
  public:
    using Index = residua::Index;

    explicit CheckpointFormat(const residua::io::GPTQConfig& config) : format_(config) {}
    explicit CheckpointFormat(const PackQuantized& format) : format_(format) {}
    CheckpointFormat(FloatFormat format, Index group_size) : format_(format), group_size_(group_size) {}

    /// quantization_config of a model in which linear layers are quantized but for `ignore`.
    nlohmann::json config(const std::vector<std::string>& ignore) const {
        if (const auto* gptq = gptq_config()) return gptq->to_json();
        if (const auto* floats = std::get_if<FloatFormat>(&format_))
            return quantization_config(*floats, ignore);
        const auto& [grid, size] = std::get<PackQuantized>(format_);
        const bool is_per_channel = size == residua::SolverOptions::per_channel;
        residua::io::PackQuantizedLayer layer{.grid = grid, .groups = is_per_channel ? 1 : 2};
        layer.cols = is_per_channel ? 1 : 2 * size;  // any layer of such groups
        return layer.config(ignore);
    }

    /// Null in other formats.
    const residua::io::GPTQConfig* gptq_config() const {
        return std::get_if<residua::io::GPTQConfig>(&format_);
    }

    /// Throws std::invalid_argument where the format has no place for rows of so many weights.
    void require_columns(const std::string& layer, Index columns) const {
        if (gptq_config()) return;
        const auto* integers = std::get_if<PackQuantized>(&format_);
        const Index size = integers ? integers->group_size : group_size_;
        residua::require(size == residua::SolverOptions::per_channel || columns % size == 0,
                         "--format: inputs of " + layer + " are", columns,
                         "a multiple of the group size, " + std::to_string(size));
    }

    std::vector<StoredTensor> pack(const StoredLayer& layer) const {
        if (const auto* gptq = gptq_config())
            return stored_tensors(residua::io::pack_gptq(layer.integers, gptq->version));
        if (std::holds_alternative<PackQuantized>(format_))
            return stored_tensors(residua::io::pack_quantized(layer.integers));
        return layer.tensors;
    }

    /// The inverse of pack(), from a file.
    StoredLayer read(const residua::io::TensorTable& file, const std::string& name) const {
        StoredLayer stored;
        const bool is_there =
            visit_stored_layer(file, name, config({}), [&]<class G>(const char*, const G& layer) {
                if constexpr (std::is_same_v<G, residua::QuantizedLayer<residua::IntegerGrid>>) {
                    stored.integers = layer;
                } else {
                    const auto values = layer.dequantize();
                    stored.weights =
                        Eigen::Map<const llama::Rows>(values.data(), values.rows(), values.cols());
                }
            });
        if (!is_there)
            throw residua::io::FormatError("residua: '" + file.source() + "': layer '" + printable(name) +
                                           "' is missing");
        return stored;
    }

  private:
    std::variant<residua::io::GPTQConfig, PackQuantized, FloatFormat> format_;
    Index group_size_ = 0;  // of a FloatFormat
};

/// The tensors of each layer of a block.
inline std::vector<std::vector<StoredTensor>> packed(const QuantizedBlock& block,
                                                     const CheckpointFormat& format) {
    std::vector<std::vector<StoredTensor>> layers(block.size());
    residua::Executor()(residua::Index(block.size()), [&](residua::Index i) {
        layers[std::size_t(i)] = format.pack(block[std::size_t(i)]);
    });
    return layers;
}
