#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <residua/backends/host/executor.hpp>
#include <residua/io.hpp>
#include <string>
#include <vector>

/// What a model is checked for before hours of work that would end in the same: each throws std::invalid_argument.

namespace detail {

/// Whether the exponent of an element is all ones, which NaN and infinity have.
template <class Word>
bool has_exponent_of_ones(std::span<const std::byte> bytes, Word exponent) {
    bool found = false;
    for (std::size_t at = 0; at + sizeof(Word) <= bytes.size(); at += sizeof(Word)) {
        Word word;
        std::memcpy(&word, bytes.data() + at, sizeof word);
        found |= (word & exponent) == exponent;
    }
    return found;
}

}  // namespace detail

/// All weights are finite, but for embeddings: those of tokens that never occur may be anything.
inline void require_finite_weights(const residua::io::SafetensorsCheckpoint& model,
                                   const residua::Executor& executor) {
    using residua::io::DType;
    const auto& tensors = model.tensors();
    std::vector<char> is_broken(tensors.size());
    executor(residua::Index(tensors.size()), [&](residua::Index i) {
        const auto& tensor = tensors[std::size_t(i)];
        if (tensor.name.ends_with("embed_tokens.weight")) return;
        is_broken[std::size_t(i)] = (tensor.dtype == DType::BF16 &&
                                     detail::has_exponent_of_ones<std::uint16_t>(tensor.bytes, 0x7f80)) ||
                                    (tensor.dtype == DType::F16 &&
                                     detail::has_exponent_of_ones<std::uint16_t>(tensor.bytes, 0x7c00)) ||
                                    (tensor.dtype == DType::F32 &&
                                     detail::has_exponent_of_ones<std::uint32_t>(tensor.bytes, 0x7f800000));
    });
    for (std::size_t i = 0; i < tensors.size(); ++i)
        residua::require(!is_broken[i], "--model: '" + tensors[i].name + "' has", "NaN or infinity",
                         "finite weights");
}

/// A model whose output layer is said to be the embedding has no other one, which would be left out.
inline void require_one_head(const residua::io::SafetensorsCheckpoint& model, bool is_tied) {
    const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
    if (!is_tied || !model.contains(head) || !model.contains(embedding)) return;
    residua::require(std::ranges::equal(model.info(head).bytes, model.info(embedding).bytes),
                     "config.json: tie_word_embeddings is", "true",
                     "false, for lm_head.weight differs from the embedding");
}

/// Windows of `length` tokens, asked for by --`text`, are no longer than what the model was made for.
inline void require_positions(const std::filesystem::path& model, const std::string& text,
                              residua::Index length) {
    const nlohmann::json config = residua::io::read_json(model / "config.json");
    const auto at = config.find("max_position_embeddings");
    if (at == config.end() || !at->is_number_integer()) return;
    residua::require(*at >= length, "--" + text + ": the longest window has tokens:", length,
                     "at most max_position_embeddings of the model, " + at->dump());
}
