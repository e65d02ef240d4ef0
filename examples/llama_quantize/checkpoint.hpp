#pragma once

#include <residua/io.hpp>

#include "../llama/model.hpp"

/// The linear layers of one block, in the order of llama::layer_names.
using QuantizedBlock = std::array<residua::QuantizedLayer<residua::IntegerGrid>, llama::layer_names.size()>;

/// A checkpoint in the GPTQ format that is being written, one shard for each block and one for the rest.
///
/// A shard appears under its name when it is complete, the index and config.json come last: what is on disk
/// is either a finished model or what a killed run has finished, from which it can go on.
class Checkpoint {
  public:
    using Index = residua::Index;

    /// `settings`: all that the result depends on; kept in each shard, so that a run goes on only with what
    /// the same settings made. Throws std::invalid_argument where `folder` holds shards and `resume` is
    /// false, or shards of other settings.
    Checkpoint(std::filesystem::path folder, std::filesystem::path source, const llama::Config& config,
               residua::io::GPTQConfig format, std::string settings, bool resume)
        : folder_(std::move(folder)),
          source_(std::move(source)),
          blocks_(config.blocks),
          format_(format),
          settings_(std::move(settings)) {
        std::filesystem::create_directories(folder_);
        for (Index i = 0; i <= blocks_; ++i) {
            if (!std::filesystem::exists(shard(i))) continue;
            residua::require(resume, "--output: " + shard(i).string(), "exists",
                             "--resume, or another folder");
            const residua::io::SafetensorsFile file(shard(i));
            const auto at = file.metadata().find("residua_settings");
            const std::string found = at == file.metadata().end() ? "nothing" : at->second;
            residua::require(found == settings_, "--resume: " + shard(i).string() + " was made with", found,
                             settings_);
        }
    }

    bool has_block(Index block) const { return std::filesystem::exists(shard(block)); }

    void write_block(Index block, const QuantizedBlock& layers) const {
        std::vector<residua::io::GPTQLayer> packed;
        std::vector<residua::io::TensorInfo> tensors;
        for (const auto& layer : layers) packed.push_back(residua::io::pack_gptq(layer, format_.version));
        for (std::size_t i = 0; i < packed.size(); ++i) {
            for (auto& tensor : packed[i].tensors(layer_name(block, i))) tensors.push_back(std::move(tensor));
        }
        residua::io::write_safetensors(shard(block), std::move(tensors), metadata());
    }

    QuantizedBlock read_block(Index block) const {
        const residua::io::SafetensorsFile file(shard(block));
        QuantizedBlock layers;
        for (std::size_t i = 0; i < layers.size(); ++i) {
            layers[i] = residua::io::unpack_gptq(
                residua::io::read_gptq(file, layer_name(block, i), format_.bits, format_.version));
        }
        return layers;
    }

    /// Writes what is not quantized, then the index, the configuration and the tokenizer's files. Tensors
    /// keep their type, but those of a rotated model and a last norm that was fitted become float.
    void finish(const llama::Model& model, const nlohmann::json& rotation, bool is_norm_fitted) const {
        const residua::io::SafetensorsCheckpoint source(source_);
        const bool is_rotated = !rotation.is_null();
        std::vector<residua::io::TensorInfo> tensors;
        const auto add = [&](const std::string& name, const auto& matrix, bool is_changed) {
            if (!is_changed) {
                tensors.push_back(source.info(name));
                return;
            }
            std::vector<Index> shape{matrix.cols()};
            if (matrix.rows() > 1) shape.insert(shape.begin(), matrix.rows());
            tensors.push_back(residua::io::tensor_of(name, std::move(shape),
                                                     std::span(matrix.data(), std::size_t(matrix.size()))));
        };
        add("model.embed_tokens.weight", model.embedding, is_rotated);
        add("model.norm.weight", model.norm, is_rotated || is_norm_fitted);
        if (!model.config.tied_head) add("lm_head.weight", model.head, is_rotated);
        for (Index i = 0; i < blocks_; ++i) {
            const llama::Block& block = model.blocks[std::size_t(i)];
            add(llama::block_prefix(i) + "input_layernorm.weight", block.attention_norm, is_rotated);
            add(llama::block_prefix(i) + "post_attention_layernorm.weight", block.mlp_norm, is_rotated);
            for (const llama::LayerName& layer : llama::layer_names) {
                const llama::Vector& bias = (block.*layer.layer).bias;
                if (bias.size() > 0) add(llama::block_prefix(i) + layer.name + ".bias", bias, is_rotated);
            }
        }
        residua::io::write_safetensors(shard(blocks_), std::move(tensors), metadata());
        copy_tokenizer();
        write_config(model.config, rotation);
        write_index();
    }

  private:
    static constexpr const char* index_name = "model.safetensors.index.json";

    residua::io::Metadata metadata() const { return {{"format", "pt"}, {"residua_settings", settings_}}; }

    std::filesystem::path shard(Index number) const {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05td-of-%05td.safetensors", number + 1, blocks_ + 1);
        return folder_ / name;
    }

    static std::string layer_name(Index block, std::size_t layer) {
        return llama::block_prefix(block) + llama::layer_names[layer].name;
    }

    void copy_tokenizer() const {
        for (const auto& entry : std::filesystem::directory_iterator(source_)) {
            const std::string name = entry.path().filename().string();
            for (const char* prefix : {"tokenizer", "special_tokens", "added_tokens", "vocab", "merges",
                                       "chat_template", "generation_config"}) {
                if (name.starts_with(prefix))
                    std::filesystem::copy_file(entry.path(), folder_ / name,
                                               std::filesystem::copy_options::overwrite_existing);
            }
        }
    }

    void write_config(const llama::Config& config, const nlohmann::json& rotation) const {
        nlohmann::json json = residua::io::read_json(source_ / "config.json");
        json["tie_word_embeddings"] = config.tied_head;
        if (!rotation.is_null()) json["residua_rotation"] = rotation;
        residua::io::write_json(folder_ / "config.json", json);
        residua::io::write_quantization_config(folder_, format_.to_json());
    }

    void write_index() const {
        nlohmann::json map = nlohmann::json::object();
        std::uintmax_t bytes = 0;
        for (Index i = 0; i <= blocks_; ++i) {
            const residua::io::SafetensorsFile file(shard(i));
            for (const auto& tensor : file.tensors()) {
                map[tensor.name] = shard(i).filename().string();
                bytes += tensor.bytes.size();
            }
        }
        residua::io::write_json(folder_ / index_name,
                                {{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(map)}});
    }

    std::filesystem::path folder_, source_;
    Index blocks_;
    residua::io::GPTQConfig format_;
    std::string settings_;
};
