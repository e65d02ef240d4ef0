#pragma once

#include <optional>
#include <residua/transform/activation_quantizer.hpp>

namespace llama {

/// What is rounded on its way through the model; nothing by default.
struct ActivationSettings {
    std::optional<residua::ActivationQuantizer> inputs = {};  ///< of every linear layer but the output layer
    std::optional<residua::ActivationQuantizer> cache = {};  ///< keys (after the rotary embedding) and values
};

}  // namespace llama
