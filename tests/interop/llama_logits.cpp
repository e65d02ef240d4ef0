/// llama_logits <folder> <tokens> <output>: the logits of a checkpoint for one window, for architectures.py to compare
/// with those of transformers.

#include <iostream>
#include <llama/runner.hpp>

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: llama_logits FOLDER TOKENS.safetensors OUTPUT.safetensors\n";
        return 2;
    }
    try {
        const llama::Model model = llama::read_model(argv[1]);
        const residua::io::SafetensorsFile file(argv[2]);
        const auto tokens = file.read<llama::Token>("tokens");
        const llama::Runner runner(model.config, residua::Index(tokens.size()));
        const llama::Rows logits = runner.logits(model, tokens);
        residua::io::write_safetensors(
            argv[3], {residua::io::tensor_of("logits", {logits.rows(), logits.cols()},
                                             std::span(logits.data(), std::size_t(logits.size())))});
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
