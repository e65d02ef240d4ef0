#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <residua/io.hpp>
#include <set>
#include <string>
#include <vector>

#include "../network/linear.hpp"
#include "../support/text.hpp"

namespace vit {

using network::Linear;
using network::Rows;
using network::Vector;
using network::view;
using residua::Index;

/// A vision transformer's sizes.
struct Config {
    Index channels = 0;
    Index patch = 0;  ///< pixels of a patch's side
    Index side = 0;   ///< patches of an image's side
    Index hidden = 0;
    Index mlp = 0;
    Index blocks = 0;
    Index heads = 0;
    Index classes = 0;

    static constexpr float norm_epsilon = 1e-6f;  // timm's

    Index image() const { return side * patch; }  ///< pixels of an image's side
    Index pixels() const { return channels * image() * image(); }
    Index patch_pixels() const { return channels * patch * patch; }
    Index tokens() const { return side * side + 1; }
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias.
struct Norm {
    Vector weight;
    Vector bias;
};

/// The linear layers of a block, in the order of the computation. Each reads an input of its own.
enum class Layer { Qkv, Proj, Fc1, Fc2 };
inline constexpr std::array layers{Layer::Qkv, Layer::Proj, Layer::Fc1, Layer::Fc2};

/// In checkpoints, behind block_prefix().
inline std::string name_of(Layer layer) {
    constexpr std::array names{"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"};
    return names[std::size_t(layer)];
}

inline std::string block_prefix(Index block) { return "blocks." + std::to_string(block) + "."; }

struct Block {
    Norm attention_norm = {};
    Norm mlp_norm = {};
    std::array<Linear, layers.size()> linear = {};

    Linear& operator[](Layer layer) { return linear[std::size_t(layer)]; }
    const Linear& operator[](Layer layer) const { return linear[std::size_t(layer)]; }
};

/// A whole model in float.
struct Model {
    Config config;
    Linear patches = {};  ///< (hidden, channels * patch * patch), of a patch's pixels
    Vector class_token = {};
    Rows positions = {};  ///< (tokens, hidden)
    std::vector<Block> blocks = {};
    Norm norm = {};
    Linear head = {};  ///< (classes, hidden)
};

namespace detail {

/// Reads a checkpoint and notes which tensors were asked for.
class Reader {
  public:
    explicit Reader(const std::filesystem::path& path) : file_(path) {}

    bool contains(const std::string& name) const { return file_.contains(name); }

    const std::vector<Index>& shape(const std::string& name, std::size_t dimensions) const {
        const auto& shape = file_.info(name).shape;
        residua::require(shape.size() == dimensions, file_.source() + ": dimensions of " + name + ":",
                         shape.size(), std::to_string(dimensions));
        return shape;
    }

    /// Elements in the given shape, as (rows, cols).
    Rows matrix(const std::string& name, const std::vector<Index>& shape, Index rows, Index cols) {
        const auto& found = file_.info(name).shape;
        residua::require(found == shape, file_.source() + ": the shape of " + name + " is", text(found),
                         text(shape) + " by the other tensors");
        Rows values(rows, cols);
        file_.read<float>(name, std::span(values.data(), std::size_t(values.size())));
        read_.insert(name);
        return values;
    }

    Vector vector(const std::string& name, Index size) { return matrix(name, {size}, 1, size); }

    Norm norm(const std::string& name, Index size) {
        return {vector(name + ".weight", size), vector(name + ".bias", size)};
    }

    Linear linear(const std::string& name, Index out, Index in) {
        return {matrix(name + ".weight", {out, in}, out, in), vector(name + ".bias", out)};
    }

    /// A tensor that nobody asked for belongs to something that would not be computed.
    void require_all_read() const {
        for (const auto& tensor : file_.tensors())
            if (!read_.contains(tensor.name))
                residua::reject(file_.source() + " has a tensor", "'" + printable(tensor.name) + "'",
                                "the tensors of timm's vit_ and deit_ models with a class token alone");
    }

  private:
    static std::string text(const std::vector<Index>& shape) {
        std::string words = "(";
        for (const Index size : shape) words += (words.size() > 1 ? ", " : "") + std::to_string(size);
        return words + ")";
    }

    residua::io::SafetensorsCheckpoint file_;
    std::set<std::string> read_;
};

/// timm's model_args.num_heads of a config.json beside the model, else one head for every 64 features, as all
/// of timm's have.
inline Index heads_of(const std::filesystem::path& folder, Index hidden) {
    const std::filesystem::path path = folder / "config.json";
    nlohmann::json heads = std::max<Index>(1, hidden / 64);
    if (std::filesystem::exists(path)) {
        const nlohmann::json json = residua::io::read_json(path);
        const auto arguments = json.find("model_args");
        if (arguments != json.end() && arguments->is_object() && arguments->contains("num_heads"))
            heads = arguments->at("num_heads");
    }
    const bool fits =
        heads.is_number_integer() && heads >= 1 && heads <= hidden && hidden % heads.get<Index>() == 0;
    residua::require(fits, path.string() + ": num_heads is", heads.dump(),
                     "a divisor of the " + std::to_string(hidden) + " features");
    return heads.get<Index>();
}

}  // namespace detail

/// Reads a checkpoint of timm's naming (vit_*, deit_* without distillation): `folder` with one or more
/// safetensors files and, unless heads have 64 features, config.json. Throws std::invalid_argument where tensors
/// do not fit each other or are not such a model's.
inline Model read_model(const std::filesystem::path& folder) {
    detail::Reader file(folder);
    Model model;
    Config& c = model.config;
    const std::string patches = "patch_embed.proj";
    const std::vector<Index> kernel = file.shape(patches + ".weight", 4);  // (hidden, channels, patch, patch)
    c.hidden = kernel[0];
    c.channels = kernel[1];
    c.patch = kernel[2];
    const Index tokens = file.shape("pos_embed", 3)[1];
    while ((c.side + 1) * (c.side + 1) < tokens) ++c.side;
    residua::require(c.side >= 1 && c.tokens() == tokens, "the second dimension of pos_embed is", tokens,
                     "the number of patches of a square image, and 1 for the class token");
    c.mlp = file.shape(block_prefix(0) + "mlp.fc1.weight", 2)[0];
    c.classes = file.shape("head.weight", 2)[0];
    c.heads =
        detail::heads_of(std::filesystem::is_directory(folder) ? folder : folder.parent_path(), c.hidden);

    model.patches = {file.matrix(patches + ".weight", {c.hidden, c.channels, c.patch, c.patch}, c.hidden,
                                 c.patch_pixels()),
                     file.vector(patches + ".bias", c.hidden)};
    model.class_token = file.matrix("cls_token", {1, 1, c.hidden}, 1, c.hidden);
    model.positions = file.matrix("pos_embed", {1, tokens, c.hidden}, tokens, c.hidden);
    for (; file.contains(block_prefix(c.blocks) + "norm1.weight"); ++c.blocks) {
        const std::string prefix = block_prefix(c.blocks);
        Block& block = model.blocks.emplace_back();
        block.attention_norm = file.norm(prefix + "norm1", c.hidden);
        block.mlp_norm = file.norm(prefix + "norm2", c.hidden);
        const std::array sizes{std::pair(3 * c.hidden, c.hidden), std::pair(c.hidden, c.hidden),
                               std::pair(c.mlp, c.hidden), std::pair(c.hidden, c.mlp)};
        for (const Layer layer : layers) {
            const auto [out, in] = sizes[std::size_t(layer)];
            block[layer] = file.linear(prefix + name_of(layer), out, in);
        }
    }
    model.norm = file.norm("norm", c.hidden);
    model.head = file.linear("head", c.classes, c.hidden);
    file.require_all_read();
    return model;
}

/// A safetensors file of timm's naming, in float: what has been quantized is dequantized there.
inline void write_model(const std::filesystem::path& path, const Model& model) {
    const Config& c = model.config;
    std::vector<residua::io::TensorInfo> tensors;
    const auto add = [&](const std::string& name, std::vector<Index> shape, const auto& values) {
        tensors.push_back(residua::io::tensor_of(name, std::move(shape),
                                                 std::span(values.data(), std::size_t(values.size()))));
    };
    const auto add_norm = [&](const std::string& name, const Norm& norm) {
        add(name + ".weight", {c.hidden}, norm.weight);
        add(name + ".bias", {c.hidden}, norm.bias);
    };
    const auto add_linear = [&](const std::string& name, const Linear& linear) {
        add(name + ".weight", {linear.weight.rows(), linear.weight.cols()}, linear.weight);
        add(name + ".bias", {linear.bias.size()}, linear.bias);
    };
    add("patch_embed.proj.weight", {c.hidden, c.channels, c.patch, c.patch}, model.patches.weight);
    add("patch_embed.proj.bias", {c.hidden}, model.patches.bias);
    add("cls_token", {1, 1, c.hidden}, model.class_token);
    add("pos_embed", {1, c.tokens(), c.hidden}, model.positions);
    for (Index i = 0; i < c.blocks; ++i) {
        const Block& block = model.blocks[std::size_t(i)];
        add_norm(block_prefix(i) + "norm1", block.attention_norm);
        add_norm(block_prefix(i) + "norm2", block.mlp_norm);
        for (const Layer layer : layers) add_linear(block_prefix(i) + name_of(layer), block[layer]);
    }
    add_norm("norm", model.norm);
    add_linear("head", model.head);
    residua::io::write_safetensors(path, std::move(tensors), {{"format", "pt"}});
}

}  // namespace vit
