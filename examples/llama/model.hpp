#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <charconv>
#include <residua/io.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/text.hpp"
#include "config.hpp"

namespace llama {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::Matrix<float, 1, Eigen::Dynamic>;

inline residua::MatrixView<float> view(Rows& m) { return {m.data(), m.rows(), m.cols()}; }
inline residua::MatrixView<const float> view(const Rows& m) { return {m.data(), m.rows(), m.cols()}; }

/// y = x W' + b.
struct Linear {
    Rows weight;       ///< (out, in)
    Vector bias = {};  ///< (out), or empty

    Rows operator()(const Rows& x) const {
        Rows y = x * weight.transpose();
        if (bias.size() > 0) y.rowwise() += bias;
        return y;
    }
};

/// What a linear layer of a block is to the computation.
enum class Role { Query, Key, Value, Output, Gate, Up, Down };

/// The points of a block at which linear layers read, in the order of the computation.
enum class Input { Attention, Output, Mlp, Down };
inline constexpr std::array inputs{Input::Attention, Input::Output, Input::Mlp, Input::Down};

/// A linear layer of a block, of weights (out, in).
struct LayerSpec {
    std::string name;  ///< in checkpoints, behind block_prefix(): "self_attn.q_proj"
    Role role;
    Input input;  ///< where it reads
    Index out;
    Index in;
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

    const Linear& operator[](Role role) const {
        const auto at = std::ranges::find(layers, role, [](const BlockLayer& l) { return l.spec.role; });
        residua::require(at != layers.end(), "Block: layers of role", int(role), "one");
        return at->linear;
    }
    Linear& operator[](Role role) { return const_cast<Linear&>(std::as_const(*this)[role]); }
};

/// The linear layers of any block, in the order in which they are quantized.
inline std::vector<LayerSpec> layers_of(const Config& c) {
    return {{"self_attn.q_proj", Role::Query, Input::Attention, c.query_size(), c.hidden},
            {"self_attn.k_proj", Role::Key, Input::Attention, c.key_value_size(), c.hidden},
            {"self_attn.v_proj", Role::Value, Input::Attention, c.key_value_size(), c.hidden},
            {"self_attn.o_proj", Role::Output, Input::Output, c.hidden, c.query_size()},
            {"mlp.gate_proj", Role::Gate, Input::Mlp, c.intermediate, c.hidden},
            {"mlp.up_proj", Role::Up, Input::Mlp, c.intermediate, c.hidden},
            {"mlp.down_proj", Role::Down, Input::Down, c.hidden, c.intermediate}};
}

/// A norm of a block.
struct NormSpec {
    std::string name;  ///< in checkpoints, behind block_prefix()
    Vector Block::*norm;
    Index size;
};

/// The norms of any block.
inline std::vector<NormSpec> norms_of(const Config& c) {
    std::vector<NormSpec> norms{{"input_layernorm", &Block::attention_norm, c.hidden},
                                {"post_attention_layernorm", &Block::mlp_norm, c.hidden}};
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

/// Dequantized where the checkpoint holds it in the GPTQ format.
inline Linear read_linear(const residua::io::TensorTable& file, const std::string& name, Index out, Index in,
                          const std::optional<residua::io::GPTQConfig>& quantization) {
    Linear layer;
    if (quantization && file.contains(name + ".qweight")) {
        const auto values = residua::io::unpack_gptq(
                                residua::io::read_gptq(file, name, quantization->bits, quantization->version))
                                .dequantize();
        residua::require(values.rows() == out && values.cols() == in,
                         file.source() + ": elements of " + name + ":", values.rows() * values.cols(),
                         std::to_string(out) + " x " + std::to_string(in) + " by config.json");
        layer.weight = Eigen::Map<const Rows>(values.data(), out, in);
    } else {
        layer.weight = read_matrix(file, name + ".weight", out, in);
    }
    if (file.contains(name + ".bias")) layer.bias = read_vector(file, name + ".bias", out);
    return layer;
}

}  // namespace detail

/// Whether to read a model's matrices: the weights of linear layers, the embedding and the output layer.
enum class Matrices { Read, LeaveOut };

/// Reads a checkpoint of Hugging Face's layout: `folder` with config.json and one or more safetensors files,
/// plain or in the GPTQ format. Throws std::invalid_argument where a tensor does not have the shape that
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
        for (const NormSpec& norm : norms_of(c))
            block.*norm.norm = detail::read_vector(file, prefix + norm.name + ".weight", norm.size);
        for (LayerSpec& spec : layers_of(c)) {
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
    if (reads)
        model.head = c.tied_head ? model.embedding
                                 : detail::read_matrix(file, "lm_head.weight", c.vocabulary, c.hidden);
    return model;
}

}  // namespace llama
