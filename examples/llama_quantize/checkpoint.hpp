#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <residua/io.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../support/content_hash.hpp"
#include "../support/folder_lock.hpp"
#include "../support/output_file.hpp"
#include "../support/text.hpp"
#include "checkpoint_format.hpp"

/// A checkpoint that is being written, one shard for each block and one for the rest.
///
/// A shard appears under its name when it is complete, the index and config.json come last: what is on disk
/// is either a finished model or what a killed run has finished, from which it can go on. The folder is this
/// process's alone for as long as the object lives, see FolderLock.
class Checkpoint : public Output {
  public:
    using Index = residua::Index;

    /// `rotation`: null, or what config.json says of it. `settings`: a JSON object of all that the result
    /// depends on; kept in each shard, so that a run goes on only with what the same settings made. Finished
    /// shards are kept on Existing::Resume, if their settings and checksums agree; start() removes what is to be
    /// overwritten, so that no two models are mixed. Throws std::invalid_argument for a folder that is, or lies
    /// in, that of the source, and for files that are not this checkpoint's to replace.
    Checkpoint(std::filesystem::path folder, std::filesystem::path source, const llama::Config& config,
               CheckpointFormat format, nlohmann::json rotation, const nlohmann::json& settings,
               Existing existing)
        : folder_(std::move(folder)),
          source_(std::move(source)),
          config_(config),
          blocks_(config.blocks),
          has_block_(std::size_t(blocks_), false),
          format_(std::move(format)),
          rotation_(std::move(rotation)),
          tied_head_(config.tied_head && rotation_.is_null()),
          settings_(settings.dump()) {
        require_apart();
        for (Index i = 0; i < blocks_; ++i)
            for (const llama::LayerSpec& layer : llama::layers_of(config_, i))
                format_.require_columns(llama::block_prefix(i) + layer.name, layer.in);
        create_folder();
        lock_.emplace(folder_);
        inspect(existing);
    }

    /// Removes what is to go. All that can be known to go wrong is known now.
    void start() override {
        for (const std::filesystem::path& path : obsolete_) std::filesystem::remove(path);
        obsolete_.clear();
    }

    bool has_block(Index block) const override { return has_block_[std::size_t(block)]; }

    void write_block(Index block, const QuantizedBlock& layers, const nlohmann::json& degraded) override {
        const std::vector<std::string> names = layer_names(block);
        const std::vector<std::vector<StoredTensor>> files = packed(layers, format_);
        std::vector<residua::io::TensorInfo> tensors;
        for (std::size_t i = 0; i < files.size(); ++i)
            for (const StoredTensor& tensor : files[i]) tensors.push_back(tensor.of(names[i]));
        write_shard(block, std::move(tensors), degraded);
        has_block_[std::size_t(block)] = true;
    }

    QuantizedBlock read_block(Index block, nlohmann::json& degraded) const override {
        const residua::io::SafetensorsFile file = open_shard(block);
        degraded = nlohmann::json::parse(file.metadata().find("residua_degraded")->second, nullptr, false);
        QuantizedBlock layers;
        for (const std::string& name : layer_names(block)) layers.push_back(format_.read(file, name));
        return layers;
    }

    /// Writes what is not quantized, then the configuration, the tokenizer's files and the index. Tensors keep
    /// their type, but those of a rotated model and a last norm that was fitted become float.
    void finish(const llama::Model& model, bool is_norm_fitted) override {
        const residua::io::SafetensorsCheckpoint source(source_);
        const bool is_rotated = !rotation_.is_null();
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
        // What norms of changed weights are stored as, for as long as the tensors.
        std::deque<llama::Vector> norms;
        const auto add_norm = [&](const std::string& name, const llama::Vector& norm, bool is_changed) {
            norms.push_back(norm.array() - config_.norm_offset);
            add(name, norms.back(), is_changed);
        };
        add("model.embed_tokens.weight", model.embedding, is_rotated);
        add_norm("model.norm.weight", model.norm, is_rotated || is_norm_fitted);
        if (!model.config.tied_head) add("lm_head.weight", model.head, is_rotated);
        for (Index i = 0; i < blocks_; ++i) {
            const std::string prefix = llama::block_prefix(i);
            const llama::Block& block = model.blocks[std::size_t(i)];
            for (const llama::NormSpec& norm : llama::norms_of(config_))
                add_norm(prefix + norm.name + ".weight", block.*norm.norm, is_rotated);
            if (block.has_experts())
                add(prefix + llama::router_name(config_) + ".weight", block.router.weight, is_rotated);
            for (const llama::BlockLayer& layer : block.layers) {
                const llama::Vector& bias = layer.linear.bias;
                if (bias.size() > 0) add(prefix + layer.spec.name + ".bias", bias, is_rotated);
            }
        }
        write_shard(blocks_, std::move(tensors), nlohmann::json::object());
        for (const auto& [name, text] : small_files()) write_text(folder_ / name, text);
        write_index();
    }

  private:
    static constexpr const char* index_name = "model.safetensors.index.json";

    std::filesystem::path shard(Index number) const {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05td-of-%05td.safetensors", number + 1, blocks_ + 1);
        return folder_ / name;
    }

    std::vector<std::string> layer_names(Index block) const {
        std::vector<std::string> names;
        for (const llama::LayerSpec& layer : llama::layers_of(config_, block))
            names.push_back(llama::block_prefix(block) + layer.name);
        return names;
    }

    /// Neither the folder of the source nor one in it, by whatever names.
    void require_apart() const {
        namespace fs = std::filesystem;
        const fs::path source = fs::weakly_canonical(source_);
        for (fs::path at = fs::weakly_canonical(fs::absolute(folder_));; at = at.parent_path()) {
            residua::require(at != source, "--output: '" + folder_.string() + "' is",
                             "--model, or a folder in it", "a folder of its own");
            if (at == at.parent_path()) return;
        }
    }

    void create_folder() const {
        std::error_code error;
        std::filesystem::create_directories(folder_, error);
        if (error) throw residua::io::FileError("create the folder", folder_.string(), error.value());
    }

    /// Finds out what the folder holds, and refuses what is not this checkpoint's to replace.
    void inspect(Existing existing) {
        namespace fs = std::filesystem;
        const std::map<std::string, std::string> small = small_files();
        std::set<std::string> ours{index_name};
        for (const auto& [name, text] : small) ours.insert(name);
        for (Index i = 0; i <= blocks_; ++i) ours.insert(shard(i).filename().string());

        for (const auto& entry : fs::directory_iterator(folder_)) {
            const std::string name = entry.path().filename().string();
            const std::string shown = "--output: '" + printable(entry.path().string()) + "'";
            if (name.starts_with(".residua-") && name.ends_with(".tmp")) {
                obsolete_.push_back(entry.path());  // what a killed run was about to write
            } else if (ours.contains(name)) {
                residua::require(fs::is_regular_file(entry.symlink_status()), shown + " is",
                                 "no regular file", "nothing, or a file to replace");
                residua::require(existing != Existing::Refuse, shown, "exists",
                                 "--resume, --overwrite, or another folder");
                // the index first, without which no reader takes what is left for a model
                if (existing == Existing::Overwrite)
                    obsolete_.insert(name == index_name ? obsolete_.begin() : obsolete_.end(), entry.path());
            } else {
                residua::require(
                    !name.ends_with(".safetensors") && !name.ends_with(".safetensors.index.json"), shown,
                    "exists", "another folder: this file would be taken for a part of the model");
            }
        }
        if (existing != Existing::Resume) return;
        for (Index i = 0; i < blocks_; ++i) {
            if (!fs::exists(shard(i))) continue;
            (void)open_shard(i);
            has_block_[std::size_t(i)] = true;
        }
        const auto require_ours = [&](const std::string& name, bool is_ours) {
            residua::require(is_ours, "--resume: '" + (folder_ / name).string() + "' is",
                             "not what this run writes", "--overwrite, or another folder");
        };
        const bool has_rest = fs::exists(shard(blocks_));
        if (has_rest) (void)open_shard(blocks_);
        if (fs::exists(folder_ / index_name)) require_ours(index_name, has_rest);
        for (const auto& [name, text] : small) {
            if (!fs::exists(folder_ / name)) continue;
            const residua::io::MappedFile file(folder_ / name);
            require_ours(name, std::ranges::equal(file.bytes(), std::as_bytes(std::span(text))));
        }
    }

    /// A finished shard. Throws std::invalid_argument where other settings made it, FormatError where it is not
    /// as it was written.
    residua::io::SafetensorsFile open_shard(Index number) const {
        residua::io::SafetensorsFile file(shard(number));
        const auto entry = [&](const char* name) -> std::string {
            const auto at = file.metadata().find(name);
            return at == file.metadata().end() ? "" : at->second;
        };
        const std::string found = entry("residua_settings");
        if (found != settings_) {
            const auto [theirs, ours] = difference(found);
            residua::reject("--resume: '" + shard(number).string() + "' was made with", theirs, ours);
        }
        const std::string sum = checksum(file.tensors(), entry("residua_degraded"));
        if (entry("residua_checksum") != sum)
            throw residua::io::FormatError("residua: '" + shard(number).string() + "': the checksum is " +
                                           sum + ", expected '" + printable(entry("residua_checksum")) +
                                           "': the file was damaged; remove it to have it made anew");
        return file;
    }

    /// Of the settings, those that are not the same.
    std::pair<std::string, std::string> difference(const std::string& found) const {
        nlohmann::json theirs = nlohmann::json::parse(found, nullptr, false);
        nlohmann::json ours = nlohmann::json::parse(settings_);
        if (!theirs.is_object()) return {"no settings", ours.dump()};
        const nlohmann::json all = ours;
        for (const auto& [name, value] : all.items()) {
            if (theirs.contains(name) && theirs[name] == value) {
                theirs.erase(name);
                ours.erase(name);
            }
        }
        return {theirs.dump(), ours.dump()};
    }

    /// Of the names, types, shapes and elements of all tensors, and of the notes.
    static std::string checksum(std::vector<residua::io::TensorInfo> tensors, const std::string& notes) {
        std::ranges::sort(tensors, {}, &residua::io::TensorInfo::name);
        ContentHash hash;
        hash.add(notes);
        for (const residua::io::TensorInfo& tensor : tensors) {
            hash.add(tensor.name);
            hash.add(name_of(tensor.dtype));
            hash.add(std::as_bytes(std::span(tensor.shape)));
            hash.add(tensor.bytes);
        }
        return hash.text();
    }

    void write_shard(Index number, std::vector<residua::io::TensorInfo> tensors,
                     const nlohmann::json& degraded) const {
        lock_->check();
        const std::string notes = degraded.dump();
        const std::string sum = checksum(tensors, notes);
        residua::io::write_safetensors(shard(number), std::move(tensors),
                                       {{"format", "pt"},
                                        {"residua_settings", settings_},
                                        {"residua_degraded", notes},
                                        {"residua_checksum", sum}});
    }

    static void write_text(const std::filesystem::path& path, const std::string& text) {
        residua::io::AtomicFile file(path);
        file.append(std::as_bytes(std::span(text)));
        file.commit();
    }

    /// Everything but weights and their index: the configuration, and the tokenizer's files as they are.
    std::map<std::string, std::string> small_files() const {
        std::map<std::string, std::string> files;
        for (const auto& entry : std::filesystem::directory_iterator(source_)) {
            const std::string name = entry.path().filename().string();
            for (const char* prefix :
                 {"tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template",
                  "generation_config", "tekken", "preprocessor_config", "processor_config"}) {
                if (!name.starts_with(prefix) || !entry.is_regular_file()) continue;
                const residua::io::MappedFile file(entry.path());
                files[name] =
                    std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
            }
        }
        nlohmann::json config = residua::io::read_json(source_ / "config.json");
        config["tie_word_embeddings"] = tied_head_;
        if (!rotation_.is_null()) {
            config["residua_rotation"] = rotation_;
            if (rotation_.value("online_hadamard", false)) {
                // Programs that know the architecture but not the transforms would compute nonsense without an error.
                config["model_type"] = std::string(llama::Config::online_hadamard_prefix) + config_.type;
                config["architectures"] = {"ResiduaOnlineHadamardForCausalLM"};
            }
        }
        std::vector<std::string> ignore{"lm_head"};
        if (config_.experts.count > 0) ignore.push_back("re:.*" + llama::router_name(config_) + "$");
        config["quantization_config"] = format_.config(ignore);
        if (format_.gptq_config())
            files["quantize_config.json"] = config["quantization_config"].dump(2) + "\n";
        files["config.json"] = config.dump(2) + "\n";
        return files;
    }

    void write_index() const {
        nlohmann::json map = nlohmann::json::object();
        std::uintmax_t bytes = 0;
        for (Index i = 0; i <= blocks_; ++i) {
            const residua::io::SafetensorsFile file = open_shard(i);
            for (const auto& tensor : file.tensors()) {
                map[tensor.name] = shard(i).filename().string();
                bytes += tensor.bytes.size();
            }
        }
        residua::io::write_json(folder_ / index_name,
                                {{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(map)}});
    }

    std::filesystem::path folder_, source_;
    llama::Config config_;
    Index blocks_;
    std::vector<bool> has_block_;
    CheckpointFormat format_;
    nlohmann::json rotation_;
    bool tied_head_;
    std::string settings_;
    std::optional<FolderLock> lock_;
    std::vector<std::filesystem::path> obsolete_;
};
