#include "plain_text.hpp"

#include <cstdio>
#include <memory>
#include <stdexcept>

namespace {

using residua::Index;

/// As one word of a shell.
std::string quoted(const std::string& text) {
    std::string word = "'";
    for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return word + "'";
}

bool has_only_numbers(const std::filesystem::path& path) {
    const residua::io::MappedFile file(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    return text.find_first_not_of("0123456789-, \t\r\n") == std::string_view::npos;
}

std::vector<llama::Token> tokens_of(const std::filesystem::path& tokenizer,
                                    const std::filesystem::path& text) {
    const std::string command = "python3 " +
                                quoted(RESIDUA_EXAMPLE_DATA_DIR "/../llama_quantize/tokenize_text.py") + ' ' +
                                quoted(tokenizer.string()) + ' ' + quoted(text.string());
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (!pipe) throw std::runtime_error("residua: python3 cannot be started");
    std::vector<llama::Token> tokens;
    llama::Token buffer[4096];
    while (const std::size_t count = std::fread(buffer, sizeof *buffer, std::size(buffer), pipe))
        tokens.insert(tokens.end(), buffer, buffer + count);
    if (::pclose(pipe) != 0)  // what it is has been said on stderr
        throw std::runtime_error("residua: '" + text.string() +
                                 "': python3 with the package tokenizers could not tokenize it");
    return tokens;
}

}  // namespace

llama::Windows read_text_windows(const std::filesystem::path& model, const std::filesystem::path& text,
                                 Index vocabulary, Index length, Index limit) {
    residua::require(length >= 2, "--window is", length, "at least 2");
    constexpr Index byte_level = 256;
    if (vocabulary == byte_level || text.extension() == ".safetensors" || has_only_numbers(text))
        return llama::read_windows(text, vocabulary, length, limit);
    const std::filesystem::path tokenizer = model / "tokenizer.json";
    residua::require(std::filesystem::exists(tokenizer),
                     "'" + text.string() + "': tokenizer.json of the model is", "missing",
                     "it, for plain text, or a file of token ids");
    const std::vector<llama::Token> tokens = tokens_of(tokenizer, text);
    llama::Windows windows;
    for (auto at = tokens.begin(); tokens.end() - at >= length; at += length)
        windows.emplace_back(at, at + length);
    llama::finish_windows(windows, text, vocabulary, length, limit);
    return windows;
}
