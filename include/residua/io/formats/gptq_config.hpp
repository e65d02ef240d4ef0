#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "residua/core/error.hpp"
#include "residua/core/version.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/quantization_config.hpp"
#include "residua/solver/quantized_layer.hpp"

namespace residua::io {

/// What the integers in qzeros are.
enum class GPTQVersion {
    V1,  ///< zero - 1: checkpoint_format "gptq", which every runtime reads
    V2,  ///< zero: checkpoint_format "gptq_v2", which holds every zero; GPTQModel, vLLM and SGLang read it
};

/// quantize_config.json, and quantization_config in config.json, of a GPTQ checkpoint.
struct GPTQConfig {
    int bits = 4;
    Index group_size = 128;  ///< -1: one group
    bool desc_act = false;   ///< g_idx is not j / group_size
    bool sym = true;         ///< all zeros are 2^(bits-1)
    GPTQVersion version = GPTQVersion::V2;
    bool lm_head = false;  ///< the output layer is quantized too

    /// The settings that fit `layer`. Throws std::invalid_argument where its groups differ in size.
    [[nodiscard]] static GPTQConfig of(const QuantizedLayer<IntegerGrid>& layer, GPTQVersion version) {
        const Grouping grouping = layer.grouping();
        return {.bits = layer.grid.bits,
                .group_size = layer.groups == 1 ? -1 : grouping.size,
                .desc_act = !grouping.is_sequential,
                .sym = layer.grid.symmetry != Symmetry::None,
                .version = version};
    }

    [[nodiscard]] nlohmann::json to_json() const {
        const std::string quantizer = "residua:" + to_string(residua::version);
        return {{"bits", bits},
                {"group_size", group_size},
                {"desc_act", desc_act},
                {"sym", sym},
                {"lm_head", lm_head},
                {"quant_method", "gptq"},
                {"checkpoint_format", version == GPTQVersion::V1 ? "gptq" : "gptq_v2"},
                {"pack_dtype", "int32"},
                {"meta", {{"quantizer", {quantizer}}}}};
    }

    /// Throws FormatError where bits or group_size is missing, a setting is of another kind, or quant_method or
    /// checkpoint_format is that of other tensors.
    [[nodiscard]] static GPTQConfig from_json(const nlohmann::json& json) {
        const auto method = detail::setting<std::string>(json, "/quant_method", "gptq");
        if (method != "gptq")
            detail::malformed("quantization_config", "quant_method is ", detail::in_quotes(method),
                              ", expected 'gptq'");
        const auto format = detail::setting<std::string>(json, "/checkpoint_format", "gptq");
        if (format != "gptq" && format != "gptq_v2")
            detail::malformed("quantization_config", "checkpoint_format is ", detail::in_quotes(format),
                              ", expected 'gptq' or 'gptq_v2'");
        return {.bits = detail::setting<int>(json, "/bits"),
                .group_size = detail::setting<Index>(json, "/group_size"),
                .desc_act = detail::setting<bool>(json, "/desc_act", false),
                .sym = detail::setting<bool>(json, "/sym", true),
                .version = format == "gptq_v2" ? GPTQVersion::V2 : GPTQVersion::V1,
                .lm_head = detail::setting<bool>(json, "/lm_head", false)};
    }
};

/// Throws std::invalid_argument unless the GPTQ format holds codes of so many bits.
inline void require_gptq_bits(int bits) {
    require(bits == 2 || bits == 3 || bits == 4 || bits == 8, "GPTQ format: bits is", bits, "2, 3, 4 or 8");
}

}  // namespace residua::io
