#pragma once

#include "../config.hpp"

namespace llama::cuda {

inline constexpr int vector_width = 8;      ///< values that kernels move at once
inline constexpr Index largest_head = 256;  ///< that attention has registers for

/// Throws std::invalid_argument for models that the kernels do not compute on windows of up to so many tokens.
inline void require_supported(const Config& c, Index positions) {
    const bool is_known = c.type == "llama" || c.type == "mistral" || c.type == "qwen2" || c.type == "qwen3";
    residua::require(is_known, "--device cuda: model_type is", c.type, "llama, mistral, qwen2 or qwen3");
    residua::require(c.sliding_window == 0 || positions <= c.sliding_window,
                     "--device cuda: tokens of a window are", positions,
                     "at most " + std::to_string(c.sliding_window) + ", sliding_window of config.json");
    const auto divides = [](const char* name, Index value) {
        residua::require(value % vector_width == 0, std::string("--device cuda: ") + name + " is", value,
                         "a multiple of 8");
    };
    divides("hidden_size", c.hidden);
    divides("intermediate_size", c.intermediate);
    divides("head_dim", c.head_size);
    residua::require(c.head_size <= largest_head, "--device cuda: head_dim is", c.head_size, "at most 256");
}

}  // namespace llama::cuda
