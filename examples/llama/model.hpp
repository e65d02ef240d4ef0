#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <residua/io.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../network/linear.hpp"
#include "../support/stored_layer.hpp"
#include "../support/text.hpp"
#include "config.hpp"

namespace llama {

using network::Linear;
using network::Rows;
using network::Vector;
using network::view;

/// What a linear layer of a block is to the computation.
enum class Role { Query, Key, Value, Output, Gate, Up, Down };

/// The points of a block at which linear layers read, in the order of the computation.
enum class Input { Attention, Output, Mlp, Down };
inline constexpr std::array inputs{Input::Attention, Input::Output, Input::Mlp, Input::Down};

/// In place of an expert's number: the layer reads all tokens.
constexpr Index every_token = -1;

/// A linear layer of a block, of weights (out, in).
struct LayerSpec {
    std::string name;  ///< in checkpoints, behind block_prefix(): "self_attn.q_proj"
    Role role;
    Input input;  ///< where it reads
    Index out;
    Index in;
    Index expert = every_token;  ///< whose tokens it reads
};

struct BlockLayer {
    LayerSpec spec;
    Linear linear = {};
};

struct Block {
    std::vector<BlockLayer> layers = {};  ///< in the order in which they are quantized: layers_of()
    Vector attention_norm = {};           ///< (hidden)
    Vector mlp_norm = {};                 ///< (hidden)
    Vector query_norm = {};               ///< (head_size), of each head before the rotary embedding; or empty
    Vector key_norm = {};                 ///< (head_size), or empty
    Vector attention_output_norm = {};    ///< (hidden), or empty
    Vector mlp_output_norm = {};          ///< (hidden), or empty
    Linear router = {};                   ///< (experts, hidden), or empty; never quantized
    bool is_sliding = false;              ///< attention by Config::sliding_window and sliding_rotary

    bool has_experts() const { return router.weight.size() > 0; }

    const Linear& at(Role role, Index expert) const {
        const auto found = std::ranges::find_if(layers, [&](const BlockLayer& layer) {
            return layer.spec.role == role && layer.spec.expert == expert;
        });
        residua::require(found != layers.end(), "Block: layers of role", int(role), "one");
        return found->linear;
    }
    const Linear& operator[](Role role) const { return at(role, every_token); }
    Linear& operator[](Role role) { return const_cast<Linear&>(std::as_const(*this)[role]); }
};

/// The linear layers of block number `block`, in the order in which they are quantized. Routers are not among them.
inline std::vector<LayerSpec> layers_of(const Config& c, Index block) {
    std::vector<LayerSpec> layers{
        {"self_attn.q_proj", Role::Query, Input::Attention, c.query_size(), c.hidden},
        {"self_attn.k_proj", Role::Key, Input::Attention, c.key_value_size(), c.hidden},
        {"self_attn.v_proj", Role::Value, Input::Attention, c.key_value_size(), c.hidden},
        {"self_attn.o_proj", Role::Output, Input::Output, c.hidden, c.query_size()}};
    if (!c.has_experts(block)) {
        layers.push_back({"mlp.gate_proj", Role::Gate, Input::Mlp, c.intermediate, c.hidden});
        layers.push_back({"mlp.up_proj", Role::Up, Input::Mlp, c.intermediate, c.hidden});
        layers.push_back({"mlp.down_proj", Role::Down, Input::Down, c.hidden, c.intermediate});
        return layers;
    }
    const Experts& experts = c.experts;
    const bool is_mixtral = experts.mixtral_names;
    const auto name = [&](Index expert, const char* mixtral, const char* qwen) {
        return (is_mixtral ? "block_sparse_moe.experts." : "mlp.experts.") + std::to_string(expert) +
               (is_mixtral ? mixtral : qwen);
    };
    for (Index e = 0; e < experts.count; ++e) {
        const Index width = experts.intermediate;
        layers.push_back({name(e, ".w1", ".gate_proj"), Role::Gate, Input::Mlp, width, c.hidden, e});
        layers.push_back({name(e, ".w3", ".up_proj"), Role::Up, Input::Mlp, width, c.hidden, e});
    }
    for (Index e = 0; e < experts.count; ++e)
        layers.push_back(
            {name(e, ".w2", ".down_proj"), Role::Down, Input::Down, c.hidden, experts.intermediate, e});
    return layers;
}

/// The name of a router in checkpoints, behind block_prefix().
inline std::string router_name(const Config& c) {
    return c.experts.mixtral_names ? "block_sparse_moe.gate" : "mlp.gate";
}

/// A norm of a block.
struct NormSpec {
    std::string name;  ///< in checkpoints, behind block_prefix()
    Vector Block::*norm;
    Index size;
};

/// The norms of any block.
inline std::vector<NormSpec> norms_of(const Config& c) {
    std::vector<NormSpec> norms{{"input_layernorm", &Block::attention_norm, c.hidden}};
    if (c.output_norms) {
        norms.push_back({"post_attention_layernorm", &Block::attention_output_norm, c.hidden});
        norms.push_back({"pre_feedforward_layernorm", &Block::mlp_norm, c.hidden});
        norms.push_back({"post_feedforward_layernorm", &Block::mlp_output_norm, c.hidden});
    } else {
        norms.push_back({"post_attention_layernorm", &Block::mlp_norm, c.hidden});
    }
    if (c.head_norms) {
        norms.push_back({"self_attn.q_norm", &Block::query_norm, c.head_size});
        norms.push_back({"self_attn.k_norm", &Block::key_norm, c.head_size});
    }
    return norms;
}

inline std::string block_prefix(Index block) { return "model.layers." + std::to_string(block) + "."; }

/// A whole model in float, 4 bytes a parameter.
struct Model {
    Config config;
    Rows embedding = {};  ///< (vocabulary, hidden)
    std::vector<Block> blocks = {};
    Vector norm = {};
    Rows head = {};  ///< (vocabulary, hidden)
};

namespace detail {

inline Rows read_matrix(const residua::io::TensorTable& file, const std::string& name, Index rows,
                        Index cols) {
    const auto& shape = file.info(name).shape;
    residua::require(shape.size() == 2 && shape[0] == rows && shape[1] == cols,
                     file.source() + ": elements of " + name + ":", file.info(name).elements(),
                     std::to_string(rows) + " x " + std::to_string(cols) + " by config.json");
    Rows matrix(rows, cols);
    file.read<float>(name, std::span(matrix.data(), std::size_t(matrix.size())));
    return matrix;
}

inline Vector read_vector(const residua::io::TensorTable& file, const std::string& name, Index size) {
    residua::require(file.info(name).elements() == size, file.source() + ": elements of " + name + ":",
                     file.info(name).elements(), std::to_string(size) + " by config.json");
    Vector vector(size);
    file.read<float>(name, std::span(vector.data(), std::size_t(size)));
    return vector;
}

/// Dequantized where the checkpoint holds it in a format of the library.
inline Linear read_linear(const residua::io::TensorTable& file, const std::string& name, Index out, Index in,
                          const nlohmann::json& quantization) {
    Linear layer;
    const bool is_quantized =
        !quantization.is_null() &&
        visit_stored_layer(file, name, quantization, [&](const char*, const auto& stored) {
            residua::require(stored.rows == out && stored.cols == in,
                             file.source() + ": elements of " + name + ":", stored.rows * stored.cols,
                             std::to_string(out) + " x " + std::to_string(in) + " by config.json");
            const auto values = stored.dequantize();
            layer.weight = Eigen::Map<const Rows>(values.data(), out, in);
        });
    if (!is_quantized) layer.weight = read_matrix(file, name + ".weight", out, in);
    if (file.contains(name + ".bias")) layer.bias = read_vector(file, name + ".bias", out);
    return layer;
}

}  // namespace detail

/// Whether to read a model's matrices: the weights of linear layers, the embedding and the output layer.
enum class Matrices { Read, LeaveOut };

/// Reads a checkpoint of Hugging Face's layout: `folder` with config.json and one or more safetensors files,
/// plain or in a quantized format of the library. Throws std::invalid_argument where a tensor does not have the shape that
/// config.json asks for.
inline Model read_model(const std::filesystem::path& folder, Matrices matrices = Matrices::Read) {
    const residua::io::SafetensorsCheckpoint file(folder);
    Model model{.config = Config::read(folder)};
    const Config& c = model.config;
    const bool reads = matrices == Matrices::Read;
    if (reads)
        model.embedding = detail::read_matrix(file, "model.embed_tokens.weight", c.vocabulary, c.hidden);
    for (Index i = 0; i < c.blocks; ++i) {
        const std::string prefix = block_prefix(i);
        Block& block = model.blocks.emplace_back();
        block.is_sliding = c.is_sliding(i);
        for (const NormSpec& norm : norms_of(c)) {
            block.*norm.norm = detail::read_vector(file, prefix + norm.name + ".weight", norm.size);
            (block.*norm.norm).array() += c.norm_offset;
        }
        if (c.has_experts(i))
            block.router.weight =
                detail::read_matrix(file, prefix + router_name(c) + ".weight", c.experts.count, c.hidden);
        for (LayerSpec& spec : layers_of(c, i)) {
            const std::string name = prefix + spec.name;
            Linear linear;
            if (reads) {
                linear = detail::read_linear(file, name, spec.out, spec.in, c.quantization);
            } else if (file.contains(name + ".bias")) {
                linear.bias = detail::read_vector(file, name + ".bias", spec.out);
            }
            block.layers.push_back({std::move(spec), std::move(linear)});
        }
    }
    // A shorter model computes something, too, and nobody would know what it was made of.
    constexpr std::string_view blocks = "model.layers.";
    for (const auto& tensor : file.tensors()) {
        if (!tensor.name.starts_with(blocks)) continue;
        const std::string_view number = std::string_view(tensor.name).substr(blocks.size());
        Index block = 0;
        const auto error = std::from_chars(number.data(), number.data() + number.size(), block).ec;
        residua::require(
            error == std::errc() && block < c.blocks, "config.json: num_hidden_layers is", c.blocks,
            "the number of blocks in " + file.source() + ", which has '" + printable(tensor.name) + "'");
    }
    model.norm = detail::read_vector(file, "model.norm.weight", c.hidden);
    model.norm.array() += c.norm_offset;
    if (reads)
        model.head = c.tied_head ? model.embedding
                                 : detail::read_matrix(file, "lm_head.weight", c.vocabulary, c.hidden);
    return model;
}

}  // namespace llama
