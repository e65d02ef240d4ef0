#include <residua/io.hpp>

#include "methods.hpp"

using namespace residua;

Result quantize_to_blocks(Experiment& experiment, const Layer& layer, const Settings& settings) {
    const auto onto = [&](const auto& target, auto write) {
        Methods methods(experiment, settings, target,
                        [&](const std::string&, const SolvedBlocks& q) { write(q); });
        methods.round();
        methods.solve("gptq", GPTQ{});
        methods.solve("qep", QEP{});
        return methods.result;
    };
    if (const auto format = float_format_named(settings.format)) {
        return onto(*format, [&](const SolvedBlocks& q) {
            std::vector<io::TensorInfo> tensors;
            for (const StoredTensor& tensor : q.tensors) tensors.push_back(tensor.of(settings.name));
            io::write_safetensors(settings.output, std::move(tensors),
                                  io::quantization_metadata(quantization_config(*format, {"lm_head"})));
        });
    }
    const io::GGMLType asked = ggml_type_named(settings.format);
    const io::GGMLType type = ggml_type_for(asked, layer.in);
    require(type != io::GGMLType::F16, "--format " + settings.format + ": columns of weight are", layer.in,
            "a multiple of 32");
    if (type != asked) announce_replacement(asked, type, layer.in);
    return onto(type, [&](const SolvedBlocks& q) {
        io::write_gguf(settings.output, {{"general.architecture", std::string("none")}},
                       {io::gguf_tensor(settings.name + ".weight", q.blocks)});
    });
}
