/// vit_logits <model> <images> <output>: the logits of a checkpoint for some images, for vit.py to compare with those of timm.

#include <iostream>
#include <vit/runner.hpp>

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: vit_logits MODEL IMAGES.safetensors OUTPUT.safetensors\n";
        return 2;
    }
    try {
        const vit::Model model = vit::read_model(argv[1]);
        const vit::Images images = vit::read_images(argv[2], model.config);
        const vit::Runner runner(model.config);
        vit::Rows logits(images.count(), model.config.classes);
        for (residua::Index i = 0; i < images.count(); ++i)
            logits.row(i) = runner.logits(model, images.pixels.row(i).data());
        residua::io::write_safetensors(
            argv[3], {residua::io::tensor_of("logits", {logits.rows(), logits.cols()},
                                             std::span(logits.data(), std::size_t(logits.size())))});
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
