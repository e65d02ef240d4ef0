#pragma once

#include "../llama/tokens.hpp"

/// llama::read_windows(), and of a text that is neither bytes nor token ids: its tokens by tokenizer.json in the folder
/// of the model, cut into windows. python3 with the package tokenizers does that. Throws std::invalid_argument where
/// there is no tokenizer.json, std::runtime_error where there is no such package, or the text is not taken.
llama::Windows read_text_windows(const std::filesystem::path& model, const std::filesystem::path& text,
                                 residua::Index vocabulary, residua::Index length, residua::Index limit);
