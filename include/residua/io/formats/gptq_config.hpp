#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "residua/core/version.hpp"
#include "residua/grids/integer_grid.hpp"
#include "residua/io/formats/quantized_layer.hpp"

namespace residua::io {

inline void require_gptq_bits(int bits) {
    require(bits == 2 || bits == 3 || bits == 4 || bits == 8, "GPTQ format: bits is", bits, "2, 3, 4 or 8");
}

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

    /// The settings that fit `layer`.
    static GPTQConfig of(const QuantizedLayer<IntegerGrid>& layer, GPTQVersion version) {
        const Grouping grouping = grouping_of(layer);
        return {.bits = layer.grid.bits,
                .group_size = grouping.is_per_channel(layer.cols) ? -1 : grouping.size,
                .desc_act = !grouping.is_sequential,
                .sym = layer.grid.symmetry != Symmetry::None,
                .version = version};
    }

    nlohmann::json to_json() const {
        const std::string quantizer = "residua:" + std::to_string(residua::version.major) + "." +
                                      std::to_string(residua::version.minor) + "." +
                                      std::to_string(residua::version.patch);
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

    /// Throws nlohmann::json::exception where a setting is missing or of another type.
    static GPTQConfig from_json(const nlohmann::json& json) {
        return {.bits = json.at("bits").get<int>(),
                .group_size = json.at("group_size").get<Index>(),
                .desc_act = json.value("desc_act", false),
                .sym = json.value("sym", true),
                .version =
                    json.value("checkpoint_format", "gptq") == "gptq_v2" ? GPTQVersion::V2 : GPTQVersion::V1,
                .lm_head = json.value("lm_head", false)};
    }
};

}  // namespace residua::io
