#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <residua/io.hpp>
#include <residua/residua.hpp>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

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

/// Pair i of a head of size n turns by position * base^(-2i/n) / divisor, but for the scaling.
struct Rotary {
    double base = 10000;
    double divisor = 1;  ///< of all rates (rope_type linear)
    std::optional<RotaryScaling> scaling = {};

    /// Radians a position, before the scaling.
    double rate(Index pair, Index head_size) const {
        return std::pow(base, -2.0 * double(pair) / double(head_size)) / divisor;
    }
};

/// Mixture of experts: a router sends each token to some of them.
struct Experts {
    Index count = 0;  ///< 0: every block has one MLP for all tokens
    Index per_token = 0;
    Index intermediate = 0;
    bool renormalizes = true;  ///< the weights of a token's experts add up to 1
    bool mixtral_names = false;
};

/// What the gate of an MLP goes through.
enum class Activation { Silu, GeluTanh };

/// config.json of a model of the Llama architecture (model_type llama, mistral, qwen2, qwen3) or of its relatives
/// (gemma3_text, mixtral, qwen3_moe).
struct Config {
    std::string type = "llama";  ///< model_type
    Index hidden = 0;
    Index intermediate = 0;
    Index blocks = 0;
    Index heads = 0;
    Index key_value_heads = 0;
    Index head_size = 0;
    Index vocabulary = 0;
    float norm_epsilon = 1e-5f;
    Rotary rotary;
    bool tied_head = false;   ///< the output layer is the embedding
    bool head_norms = false;  ///< queries and keys are normed, each head on its own
    Experts experts;
    std::vector<bool> sparse = {};  ///< blocks with experts, where they are not all

    Index sliding_window = 0;        ///< keys that a query of a sliding block sees, itself among them; 0: all
    std::vector<bool> sliding = {};  ///< blocks with a sliding window, where it is not none
    Rotary sliding_rotary;           ///< of such blocks

    // Gemma 3
    Activation activation = Activation::Silu;
    bool output_norms = false;  ///< what attention and MLP give is normed before the residual stream takes it
    float norm_offset = 0;      ///< norms' weights are what checkpoints hold and this
    float embedding_scale = 1;
    double query_scalar = 0;  ///< scores are q k' / sqrt of it; 0: of head_size

    /// Online Hadamard transforms before o_proj and down_proj. Checkpoints that need them have a model_type of their
    /// own, so that no program runs them without.
    bool online_hadamard = false;
    static constexpr std::string_view online_hadamard_prefix = "residua_online_hadamard_";

    nlohmann::json quantization;  ///< quantization_config of a quantized checkpoint, null of others

    Index query_size() const { return heads * head_size; }
    Index key_value_size() const { return key_value_heads * head_size; }
    float score_scale() const {
        return float(1 / std::sqrt(query_scalar > 0 ? query_scalar : double(head_size)));
    }
    bool is_sliding(Index block) const { return !sliding.empty() && sliding[std::size_t(block)]; }
    bool has_experts(Index block) const {
        return experts.count > 0 && (sparse.empty() || sparse[std::size_t(block)]);
    }

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
        Config c;
        c.type = json.value("model_type", "llama");
        if (c.type.starts_with(online_hadamard_prefix)) {
            c.online_hadamard = true;
            c.type.erase(0, online_hadamard_prefix.size());
        }
        const std::set<std::string> known{"llama",       "mistral", "qwen2",    "qwen3",
                                          "gemma3_text", "mixtral", "qwen3_moe"};
        residua::require(known.contains(c.type), "config.json: model_type is", c.type,
                         "llama, mistral, qwen2, qwen3, gemma3_text, mixtral or qwen3_moe");
        const bool is_gemma = c.type == "gemma3_text";
        c.head_norms = is_gemma || c.type == "qwen3" || c.type == "qwen3_moe";
        c.hidden = whole(json, "hidden_size", 1, largest_size);
        c.intermediate = whole(json, "intermediate_size", 1, largest_size);
        c.blocks = whole(json, "num_hidden_layers", 1, largest_size);
        c.heads = whole(json, "num_attention_heads", 1, largest_size);
        c.vocabulary = whole(json, "vocab_size", 1, largest_size);
        c.key_value_heads = whole(json, "num_key_value_heads", 1, c.heads, c.heads);
        residua::require(c.heads % c.key_value_heads == 0, "config.json: num_key_value_heads is",
                         c.key_value_heads, "a divisor of num_attention_heads");
        c.head_size = whole(json, "head_dim", 1, largest_size, is_gemma ? 256 : c.hidden / c.heads);
        residua::require(c.head_size >= 2 && c.head_size % 2 == 0, "config.json: head_dim is", c.head_size,
                         "even, at least 2");
        residua::require(c.query_size() <= largest_size, "config.json: head_dim * num_attention_heads is",
                         c.query_size(), "at most 2^24");
        c.norm_epsilon = float(number(json, "rms_norm_eps", 0, 1, 1e-6));
        c.tied_head = json.value("tie_word_embeddings", is_gemma);
        if (is_gemma) {
            c.read_gemma(json);
        } else {
            const std::string activation = json.value("hidden_act", "silu");
            residua::require(activation == "silu", "config.json: hidden_act is", activation, "silu");
            c.rotary = c.sliding_rotary = read_rotary(json, c.type == "mixtral" ? 1e6 : 10000);
        }
        if (c.type == "mixtral" || c.type == "qwen3_moe") c.read_experts(json);
        c.read_sliding(json);
        if (const auto quantized = json.find("quantization_config"); quantized != json.end()) {
            const std::string method = quantized->value("quant_method", "");
            residua::require(method == "gptq" || method == "compressed-tensors" || method == "bitsandbytes",
                             "config.json: quant_method is", method,
                             "gptq, compressed-tensors or bitsandbytes");
            c.quantization = *quantized;
        }
        return c;
    }

  private:
    static constexpr Index largest_size = Index(1) << 24;

    static bool is_null(const nlohmann::json& json, const char* name) {
        const auto at = json.find(name);
        return at == json.end() || at->is_null();
    }

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
    static Rotary read_rotary(const nlohmann::json& json, double base) {
        constexpr double limit = 1e12;
        Rotary rotary{.base = number(json, "rope_theta", 0, limit, base)};
        nlohmann::json scaling;
        for (const char* name : {"rope_scaling", "rope_parameters"}) {
            if (const auto at = json.find(name); at != json.end() && at->is_object()) scaling = *at;
        }
        if (scaling.is_null()) return rotary;
        rotary.base = number(scaling, "rope_theta", 0, limit, rotary.base);
        const std::string type = scaling.value("rope_type", scaling.value("type", "default"));
        if (type == "default") return rotary;
        if (type == "linear") {
            rotary.divisor = number(scaling, "factor", 0, limit);
            return rotary;
        }
        residua::require(type == "llama3", "config.json: rope_type is", type, "default, linear or llama3");
        rotary.scaling = RotaryScaling{
            .factor = number(scaling, "factor", 0, limit),
            .low_factor = number(scaling, "low_freq_factor", 0, limit),
            .high_factor = number(scaling, "high_freq_factor", 0, limit),
            .original_positions = number(scaling, "original_max_position_embeddings", 0, limit)};
        return rotary;
    }

    void read_gemma(const nlohmann::json& json) {
        const std::string function = json.value("hidden_activation", "gelu_pytorch_tanh");
        residua::require(function == "gelu_pytorch_tanh", "config.json: hidden_activation is", function,
                         "gelu_pytorch_tanh");
        for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"})
            residua::require(is_null(json, name), std::string("config.json: ") + name + " is", "given",
                             "null: scores and logits as they are");
        residua::require(!json.value("use_bidirectional_attention", false),
                         "config.json: use_bidirectional_attention is", true, "false");
        activation = Activation::GeluTanh;
        output_norms = true;
        norm_offset = 1;
        embedding_scale = float(std::sqrt(double(hidden)));
        query_scalar = number(json, "query_pre_attn_scalar", 0, double(largest_size), 256);
        constexpr double base = 1e6, local_base = 1e4;
        const auto parameters = json.find("rope_parameters");
        if (parameters != json.end() && parameters->is_object() && parameters->contains("full_attention")) {
            const auto of = [&](const char* kind, double otherwise) {
                return read_rotary({{"rope_parameters", parameters->value(kind, nlohmann::json())}},
                                   otherwise);
            };
            rotary = of("full_attention", base);
            sliding_rotary = of("sliding_attention", local_base);
        } else {
            rotary = read_rotary(json, base);
            sliding_rotary.base = number(json, "rope_local_base_freq", 0, 1e12, local_base);
        }
    }

    void read_experts(const nlohmann::json& json) {
        const bool is_mixtral = type == "mixtral";
        const char* count = is_null(json, "num_experts") ? "num_local_experts" : "num_experts";
        experts.count = whole(json, count, 1, 1 << 16);
        experts.per_token = whole(json, "num_experts_per_tok", 1, experts.count);
        experts.intermediate =
            is_mixtral ? intermediate : whole(json, "moe_intermediate_size", 1, largest_size);
        experts.renormalizes = is_mixtral || json.value("norm_topk_prob", false);
        experts.mixtral_names = is_mixtral;
        if (is_mixtral) return;
        const Index step = whole(json, "decoder_sparse_step", 1, largest_size, 1);
        sparse.assign(std::size_t(blocks), true);
        for (Index i = 0; i < blocks; ++i) sparse[std::size_t(i)] = (i + 1) % step == 0;
        if (is_null(json, "mlp_only_layers")) return;
        for (const nlohmann::json& block : json["mlp_only_layers"]) {
            const bool fits = block.is_number_integer() && block >= 0 && block < blocks;
            residua::require(fits, "config.json: one of mlp_only_layers is", block.dump(),
                             "the number of a block");
            sparse[block.get<std::size_t>()] = false;
        }
    }

    /// Which blocks have a sliding window, by layer_types or by what the model's type does without.
    void read_sliding(const nlohmann::json& json) {
        const bool is_qwen = type.starts_with("qwen");
        const bool is_gemma = type == "gemma3_text";
        if (type == "llama" || (is_qwen && !json.value("use_sliding_window", false))) return;
        if (is_null(json, "sliding_window") && !is_gemma) return;
        sliding_window = whole(json, "sliding_window", 1, largest_size, 4096);
        sliding.assign(std::size_t(blocks), true);
        if (const auto types = json.find("layer_types"); types != json.end() && types->is_array()) {
            residua::require(Index(types->size()) == blocks,
                             "config.json: entries of layer_types:", types->size(),
                             std::to_string(blocks) + ", one for each block");
            for (std::size_t i = 0; i < types->size(); ++i) {
                const auto kind = (*types)[i].get<std::string>();
                residua::require(kind == "sliding_attention" || kind == "full_attention",
                                 "config.json: one of layer_types is", kind,
                                 "sliding_attention or full_attention");
                sliding[i] = kind == "sliding_attention";
            }
        } else if (is_gemma) {
            const Index pattern = whole(json, "sliding_window_pattern", 1, largest_size, 6);
            for (Index i = 0; i < blocks; ++i) sliding[std::size_t(i)] = (i + 1) % pattern != 0;
        } else if (type == "qwen2" || type == "qwen3") {
            const Index first = whole(json, "max_window_layers", 0, largest_size, 28);
            for (Index i = 0; i < blocks; ++i) sliding[std::size_t(i)] = i >= first;
        }
    }
};

}  // namespace llama
