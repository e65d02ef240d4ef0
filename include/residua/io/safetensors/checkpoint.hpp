#pragma once

#include <cerrno>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "residua/io/mapped_file.hpp"
#include "residua/io/safetensors/file.hpp"
#include "residua/io/safetensors/index.hpp"
#include "residua/io/tensor_table.hpp"

namespace residua::io {

/// The tensors of a model that is one safetensors file or several.
///
/// `path` is a .safetensors file, an index (.json), or a directory that holds model.safetensors or, failing
/// that, model.safetensors.index.json. Of sharded models, tensors() are those that the index lists and
/// metadata() the entries on which all shards agree.
///
/// Views live as long as the checkpoint object. Throws FileError where a file is missing or cannot be read;
/// FormatError where one is malformed, a shard lacks a tensor that the index places there, or a listed tensor
/// is in two shards.
class SafetensorsCheckpoint : public TensorTable {
  public:
    explicit SafetensorsCheckpoint(const std::filesystem::path& path) {
        const std::filesystem::path file = resolve(path);
        if (file.extension() == ".json") {
            open_shards(file);
        } else {
            const auto& only = shards_.emplace_back(file);
            assign(only.source(), only.tensors(), only.metadata());
        }
    }

    /// The files, each with its own metadata.
    [[nodiscard]] const std::vector<SafetensorsFile>& shards() const { return shards_; }

  private:
    static std::filesystem::path resolve(const std::filesystem::path& path) {
        std::error_code ignored;
        if (!std::filesystem::is_directory(path, ignored)) return path;
        for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
            // A link that leads nowhere is there, too: opening it says what is wrong.
            const auto status = std::filesystem::symlink_status(path / name, ignored);
            if (std::filesystem::exists(status)) return path / name;
        }
        throw FileError("find model.safetensors or model.safetensors.index.json in", path.string(), ENOENT);
    }

    void open_shards(const std::filesystem::path& index) {
        const MappedFile file(index);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        const detail::WeightMap map = detail::parse_index(text, index.string());

        std::map<std::string_view, std::size_t> shard_numbers;
        for (const auto& [tensor, shard] : map) {
            if (shard_numbers.try_emplace(shard, shards_.size()).second)
                shards_.emplace_back(index.parent_path() / shard);
        }
        std::vector<TensorInfo> tensors;
        for (const auto& [tensor, shard] : map) {
            const SafetensorsFile& home = shards_[shard_numbers.at(shard)];
            if (!home.contains(tensor))
                detail::malformed(home.source(), "there is no tensor ", detail::in_quotes(tensor),
                                  ", expected it here by ",
                                  detail::in_quotes(index.string(), std::string_view::npos));
            tensors.push_back(home.info(tensor));
        }
        for (const SafetensorsFile& shard : shards_) {
            for (const TensorInfo& tensor : shard.tensors()) {
                const auto listed = map.find(tensor.name);
                if (listed != map.end() && &shards_[shard_numbers.at(listed->second)] != &shard)
                    detail::malformed(shard.source(), "tensor ", detail::in_quotes(tensor.name),
                                      " is here, expected it in ", detail::in_quotes(listed->second),
                                      " only, where the index places it");
            }
        }
        assign(index.string(), std::move(tensors), common_metadata());
    }

    Metadata common_metadata() const {
        if (shards_.empty()) return {};
        Metadata common = shards_.front().metadata();
        for (const SafetensorsFile& shard : shards_) {
            std::erase_if(common, [&](const auto& entry) {
                const auto at = shard.metadata().find(entry.first);
                return at == shard.metadata().end() || at->second != entry.second;
            });
        }
        return common;
    }

    std::vector<SafetensorsFile> shards_;
};

}  // namespace residua::io
