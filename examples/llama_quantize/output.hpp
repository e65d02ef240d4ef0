#pragma once

#include <residua/io.hpp>

#include "../llama/model.hpp"
#include "../support/float_formats.hpp"

/// One linear layer as it is stored.
struct StoredLayer {
    residua::QuantizedLayer<residua::IntegerGrid> integers = {};
    residua::io::GGMLMatrix blocks = {};     ///< in place of integers, of a GGUF file
    std::vector<StoredTensor> tensors = {};  ///< in place of integers, of a FloatFormat
    llama::Rows weights = {};  ///< of a layer that was read: what it stands for, where not integers
};

/// The linear layers of one block, in the order of llama::layers_of().
using QuantizedBlock = std::vector<StoredLayer>;

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
