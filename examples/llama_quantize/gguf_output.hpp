#pragma once

#include "../support/output_file.hpp"
#include "output.hpp"

/// A GGUF file that llama.cpp loads: the linear layers in blocks, embedding and output layer as F16, vectors as F32.
/// The blocks are kept in memory, and the file is written when the last one is there.
class GGUFOutput : public Output {
  public:
    using Index = residua::Index;

    /// `source`: the folder of the checkpoint. Throws std::invalid_argument where the file cannot say what the model is:
    /// an
    /// unknown tokenizer, and for a file that is not to be replaced; makes its folder.
    GGUFOutput(std::filesystem::path file, std::filesystem::path source, const llama::Config& config,
               residua::io::GGMLType type, Existing existing);

    void start() override {}
    bool has_block(Index) const override { return false; }
    QuantizedBlock read_block(Index, nlohmann::json&) const override { return {}; }
    void write_block(Index block, const QuantizedBlock& layers, const nlohmann::json& degraded) override;
    void finish(const llama::Model& model, bool is_norm_fitted) override;

  private:
    std::filesystem::path file_;
    std::string architecture_;
    std::vector<residua::io::GGUFEntry> metadata_;
    std::vector<QuantizedBlock> blocks_;
};

/// Metadata that tell the tokenizer: of a byte-level model, whose tokens are the 256 bytes, or by tokenizer.json where
/// that is byte-level BPE. Throws std::invalid_argument for others.
std::vector<residua::io::GGUFEntry> tokenizer_metadata(const std::filesystem::path& source,
                                                       const llama::Config& config);
