#pragma once

#include <residua/backends/host/executor.hpp>
#include <residua/io.hpp>

#include "../llama/model.hpp"

/// One linear layer as it is stored.
struct StoredLayer {
    residua::QuantizedLayer<residua::IntegerGrid> integers = {};
    residua::io::GGMLMatrix blocks = {};  ///< in place of integers, if there are any
};

/// The linear layers of one block, in the order of llama::layers_of().
using QuantizedBlock = std::vector<StoredLayer>;

/// The integers of each layer as files of the GPTQ format have them.
inline std::vector<residua::io::GPTQLayer> packed(const QuantizedBlock& block,
                                                  residua::io::GPTQVersion version) {
    std::vector<residua::io::GPTQLayer> layers(block.size());
    residua::Executor()(residua::Index(block.size()), [&](residua::Index i) {
        layers[std::size_t(i)] = residua::io::pack_gptq(block[std::size_t(i)].integers, version);
    });
    return layers;
}

/// Where a quantized model goes, block after block.
class Output {
  public:
    virtual ~Output() = default;

    /// Before the first block. All that can be known to go wrong is known before.
    virtual void start() = 0;

    /// Whether an earlier run has left this block.
    virtual bool has_block(residua::Index block) const = 0;

    /// `degraded`: what is to be remembered of how the layers came about.
    virtual QuantizedBlock read_block(residua::Index block, nlohmann::json& degraded) const = 0;

    /// May come from another thread than all else, while nothing else is called.
    virtual void write_block(residua::Index block, const QuantizedBlock& layers,
                             const nlohmann::json& degraded) = 0;

    /// Writes what is not quantized.
    virtual void finish(const llama::Model& model, bool is_norm_fitted) = 0;
};
