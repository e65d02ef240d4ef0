#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <residua/io.hpp>
#include <residua/residua.hpp>
#include <string>

namespace llama {

using residua::Index;

/// Llama 3's stretching of the rotary embedding: wavelengths beyond original_positions / low_factor are
/// divided by `factor`, those below original_positions / high_factor stay, in between it is interpolated.
struct RotaryScaling {
    double factor = 1;
    double low_factor = 1;
    double high_factor = 4;
    double original_positions = 8192;
};

/// config.json of a model of the Llama architecture (model_type llama, mistral or qwen2).
struct Config {
    Index hidden = 0;
    Index intermediate = 0;
    Index blocks = 0;
    Index heads = 0;
    Index key_value_heads = 0;
    Index head_size = 0;
    Index vocabulary = 0;
    float norm_epsilon = 1e-5f;
    double rotary_base = 10000;
    std::optional<RotaryScaling> rotary_scaling;
    bool tied_head = false;  ///< the output layer is the embedding

    /// Online Hadamard transforms before o_proj and down_proj, which this project's rotated checkpoints ask
    /// for.
    bool online_hadamard = false;

    std::optional<residua::io::GPTQConfig> quantization;  ///< of a quantized checkpoint

    Index query_size() const { return heads * head_size; }
    Index key_value_size() const { return key_value_heads * head_size; }

    /// Reads config.json in `folder`. Throws residua::io::FileError where there is none, FormatError where it
    /// is not JSON, std::invalid_argument where it describes something else than a Llama.
    static Config read(const std::filesystem::path& folder) {
        const std::filesystem::path path = folder / "config.json";
        try {
            return from_json(residua::io::read_json(path));
        } catch (const nlohmann::json::exception& error) {
            throw std::invalid_argument("residua: " + path.string() + ": " + error.what());
        }
    }

    static Config from_json(const nlohmann::json& json) {
        const std::string type = json.value("model_type", "llama");
        residua::require(type == "llama" || type == "mistral" || type == "qwen2",
                         "config.json: model_type is", type, "llama, mistral or qwen2");
        const std::string activation = json.value("hidden_act", "silu");
        residua::require(activation == "silu", "config.json: hidden_act is", activation, "silu");
        Config c;
        c.hidden = json.at("hidden_size").get<Index>();
        c.intermediate = json.at("intermediate_size").get<Index>();
        c.blocks = json.at("num_hidden_layers").get<Index>();
        c.heads = json.at("num_attention_heads").get<Index>();
        c.vocabulary = json.at("vocab_size").get<Index>();
        for (const Index size : {c.hidden, c.intermediate, c.blocks, c.heads, c.vocabulary})
            residua::require(size >= 1 && size <= Index(1) << 24, "config.json: a size is", size,
                             "1 to 2^24");
        c.key_value_heads = json.value("num_key_value_heads", c.heads);
        residua::require(c.key_value_heads >= 1 && c.heads % c.key_value_heads == 0,
                         "config.json: num_key_value_heads is", c.key_value_heads,
                         "a divisor of num_attention_heads");
        const auto head_size = json.find("head_dim");
        c.head_size =
            head_size != json.end() && !head_size->is_null() ? head_size->get<Index>() : c.hidden / c.heads;
        residua::require(c.head_size >= 2 && c.head_size % 2 == 0, "config.json: head_dim is", c.head_size,
                         "even, at least 2");
        c.norm_epsilon = json.value("rms_norm_eps", 1e-6f);
        c.tied_head = json.value("tie_word_embeddings", false);
        c.read_rotary(json);
        if (const auto rotation = json.find("residua_rotation"); rotation != json.end())
            c.online_hadamard = rotation->value("online_hadamard", false);
        if (const auto quantized = json.find("quantization_config"); quantized != json.end()) {
            const std::string method = quantized->value("quant_method", "");
            residua::require(method == "gptq", "config.json: quant_method is", method, "gptq");
            c.quantization = residua::io::GPTQConfig::from_json(*quantized);
        }
        return c;
    }

  private:
    /// transformers 5 has rope_parameters, earlier releases rope_theta and rope_scaling.
    void read_rotary(const nlohmann::json& json) {
        rotary_base = json.value("rope_theta", rotary_base);
        nlohmann::json scaling;
        for (const char* name : {"rope_scaling", "rope_parameters"}) {
            if (const auto at = json.find(name); at != json.end() && at->is_object()) scaling = *at;
        }
        if (scaling.is_null()) return;
        rotary_base = scaling.value("rope_theta", rotary_base);
        const std::string type = scaling.value("rope_type", scaling.value("type", "default"));
        if (type == "default") return;
        residua::require(type == "llama3", "config.json: rope_type is", type, "default or llama3");
        rotary_scaling =
            RotaryScaling{.factor = scaling.at("factor").get<double>(),
                          .low_factor = scaling.at("low_freq_factor").get<double>(),
                          .high_factor = scaling.at("high_freq_factor").get<double>(),
                          .original_positions = scaling.at("original_max_position_embeddings").get<double>()};
    }
};

}  // namespace llama
