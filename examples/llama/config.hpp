#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <residua/io.hpp>
#include <residua/residua.hpp>
#include <sstream>
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

    /// What a rate, in radians a position, is multiplied by.
    double slowing(double rate) const {
        const double turns = original_positions * rate / (2 * std::numbers::pi);
        const double keep = std::clamp((turns - low_factor) / (high_factor - low_factor), 0.0, 1.0);
        return keep + (1 - keep) / factor;
    }
};

/// config.json of a model of the Llama architecture (model_type llama, mistral, qwen2 or qwen3).
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
    bool tied_head = false;   ///< the output layer is the embedding
    bool head_norms = false;  ///< queries and keys are normed, each head on its own

    /// Online Hadamard transforms before o_proj and down_proj, which this project's rotated checkpoints ask
    /// for.
    bool online_hadamard = false;

    std::optional<residua::io::GPTQConfig> quantization;  ///< of a quantized checkpoint

    Index query_size() const { return heads * head_size; }
    Index key_value_size() const { return key_value_heads * head_size; }

    /// Radians a position that pair i of a head turns by, before rotary_scaling.
    double rotary_rate(Index i) const { return std::pow(rotary_base, -2.0 * double(i) / double(head_size)); }

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
        residua::require(type == "llama" || type == "mistral" || type == "qwen2" || type == "qwen3",
                         "config.json: model_type is", type, "llama, mistral, qwen2 or qwen3");
        const std::string activation = json.value("hidden_act", "silu");
        residua::require(activation == "silu", "config.json: hidden_act is", activation, "silu");
        Config c;
        c.head_norms = type == "qwen3";
        constexpr Index largest = Index(1) << 24;
        c.hidden = whole(json, "hidden_size", 1, largest);
        c.intermediate = whole(json, "intermediate_size", 1, largest);
        c.blocks = whole(json, "num_hidden_layers", 1, largest);
        c.heads = whole(json, "num_attention_heads", 1, largest);
        c.vocabulary = whole(json, "vocab_size", 1, largest);
        c.key_value_heads = whole(json, "num_key_value_heads", 1, c.heads, c.heads);
        residua::require(c.heads % c.key_value_heads == 0, "config.json: num_key_value_heads is",
                         c.key_value_heads, "a divisor of num_attention_heads");
        c.head_size = whole(json, "head_dim", 1, largest, c.hidden / c.heads);
        residua::require(c.head_size >= 2 && c.head_size % 2 == 0, "config.json: head_dim is", c.head_size,
                         "even, at least 2");
        residua::require(c.query_size() <= largest, "config.json: head_dim * num_attention_heads is",
                         c.query_size(), "at most 2^24");
        c.norm_epsilon = float(number(json, "rms_norm_eps", 0, 1, 1e-6));
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
    /// The number `name`, or `otherwise` where it is absent or null.
    static Index whole(const nlohmann::json& json, const char* name, Index least, Index largest,
                       std::optional<Index> otherwise = {}) {
        const auto at = json.find(name);
        const bool is_absent = at == json.end() || at->is_null();
        if (is_absent && otherwise) return *otherwise;
        const std::string expected =
            "a whole number from " + std::to_string(least) + " to " + std::to_string(largest);
        if (is_absent) residua::reject(std::string("config.json: ") + name + " is", "missing", expected);
        const bool fits = at->is_number_integer() && *at >= least && *at <= largest;
        residua::require(fits, std::string("config.json: ") + name + " is", at->dump(), expected);
        return at->get<Index>();
    }

    static double number(const nlohmann::json& json, const char* name, double above, double largest,
                         std::optional<double> otherwise = {}) {
        const auto at = json.find(name);
        const bool is_absent = at == json.end() || at->is_null();
        if (is_absent && otherwise) return *otherwise;
        std::ostringstream expected;
        expected << "a number above " << above << ", at most " << largest;
        if (is_absent)
            residua::reject(std::string("config.json: ") + name + " is", "missing", expected.str());
        const double value = at->is_number() ? at->get<double>() : NAN;
        residua::require(value > above && value <= largest, std::string("config.json: ") + name + " is",
                         at->dump(), expected.str());
        return value;
    }

    /// transformers 5 has rope_parameters, earlier releases rope_theta and rope_scaling.
    void read_rotary(const nlohmann::json& json) {
        constexpr double largest = 1e12;
        rotary_base = number(json, "rope_theta", 0, largest, rotary_base);
        nlohmann::json scaling;
        for (const char* name : {"rope_scaling", "rope_parameters"}) {
            if (const auto at = json.find(name); at != json.end() && at->is_object()) scaling = *at;
        }
        if (scaling.is_null()) return;
        rotary_base = number(scaling, "rope_theta", 0, largest, rotary_base);
        const std::string type = scaling.value("rope_type", scaling.value("type", "default"));
        if (type == "default") return;
        residua::require(type == "llama3", "config.json: rope_type is", type, "default or llama3");
        rotary_scaling = RotaryScaling{
            .factor = number(scaling, "factor", 0, largest),
            .low_factor = number(scaling, "low_freq_factor", 0, largest),
            .high_factor = number(scaling, "high_freq_factor", 0, largest),
            .original_positions = number(scaling, "original_max_position_embeddings", 0, largest)};
    }
};

}  // namespace llama
