#pragma once

#include <map>
#include <set>

#include "../../support/content_hash.hpp"
#include "../../support/folder_lock.hpp"
#include "gguf_index.hpp"
#include "record.hpp"
#include "settings.hpp"

/// The output on its way: a file that llama.cpp's own quantizer has written, with its types, its metadata and all that we
/// leave alone, in which one matrix after the other is replaced by a better one. It lies in a folder beside the output,
/// "<output>.work", with a journal of what has been replaced, so that another run can go on; the output gets its name when
/// all is done.
class Draft {
  public:
    using Index = residua::Index;

    /// Takes the folder, or throws std::invalid_argument where it is in use, or there without leave to go on with it or to
    /// replace it, or of other settings or inputs than `fingerprint`. `read`: names of the weights that texts read.
    Draft(const Settings& settings, const nlohmann::json& fingerprint, const std::set<std::string>& read);

    const GGUFIndex& file() const { return *file_; }
    std::filesystem::path path() const { return folder_ / "draft.gguf"; }

    /// Whether it has been replaced.
    bool has(const std::string& tensor, Index matrix) const { return done_.contains({tensor, matrix}); }

    void replace(const GGUFIndex::Tensor& tensor, Index matrix, std::span<const std::byte> bytes,
                 const Record& record);

    /// All bytes of a tensor, as the file holds them by now.
    std::vector<std::byte> read(const GGUFIndex::Tensor& tensor) const;

    /// Of all that has been replaced.
    std::vector<Record> records() const;

    /// Gives the file its name, and removes the folder.
    void finish(const std::filesystem::path& output);

  private:
    void make(const Settings& settings, const std::set<std::string>& read) const;
    void read_journal();
    std::string hash(const std::string& tensor, Index matrix) const;

    std::filesystem::path folder_;
    std::optional<FolderLock> lock_;
    std::unique_ptr<GGUFIndex> file_;
    std::map<std::pair<std::string, Index>, Record> done_;
};
