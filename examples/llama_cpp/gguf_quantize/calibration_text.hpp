#pragma once

#include <residua/io/mapped_file.hpp>

#include "engine.hpp"

/// Windows of `window` tokens of a text, as the model's own tokenizer cuts it, at most `count` of them unless that is 0;
/// what is left over at the end is not used. Each begins with the token that begins texts, where the model has one, as in
/// llama.cpp's own tools. Throws std::invalid_argument where the text is shorter than a window.
inline std::vector<engine::Window> read_windows(const llama_model& model, const std::filesystem::path& path,
                                                residua::Index window, residua::Index count) {
    const residua::io::MappedFile file(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const llama_vocab* vocab = llama_model_get_vocab(&model);
    residua::require(llama_vocab_type(vocab) != LLAMA_VOCAB_TYPE_NONE, "--model: the vocabulary is",
                     "missing", "a tokenizer in the file, which --calibration needs");
    residua::require(text.size() < std::size_t(std::numeric_limits<std::int32_t>::max()),
                     "--calibration: bytes are", text.size(), "fewer than 2^31");
    const auto length = static_cast<std::int32_t>(text.size());
    engine::Window tokens(text.size() + 2);
    const std::int32_t found = llama_tokenize(vocab, text.data(), length, tokens.data(),
                                              static_cast<std::int32_t>(tokens.size()), true, false);
    residua::require(found >= 0, "--calibration: the tokens are", "more than bytes", "a text");
    tokens.resize(static_cast<std::size_t>(found));
    residua::require(found >= window, "--calibration: '" + path.string() + "' has tokens:", found,
                     "at least " + std::to_string(window) + ", a window");

    std::vector<engine::Window> windows;
    for (auto at = tokens.cbegin(); tokens.cend() - at >= window; at += window) {
        if (count != 0 && std::cmp_equal(windows.size(), count)) break;
        windows.emplace_back(at, at + window);
        if (llama_vocab_get_add_bos(vocab)) windows.back().front() = llama_vocab_bos(vocab);
    }
    return windows;
}
