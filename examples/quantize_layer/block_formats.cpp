#include <residua/grids/mxfp4_grid.hpp>
#include <residua/grids/nvfp4_grid.hpp>
#include <residua/io.hpp>

#include "methods.hpp"

namespace {

using namespace residua;

void write_fp4(const Settings& settings, const io::FP4Layer& packed) {
    io::write_safetensors(settings.output, packed.tensors(settings.name),
                          io::quantization_metadata(packed.config()));
}

void write(const Settings& settings, const QuantizedLayer<NVFP4Grid>& layer) {
    write_fp4(settings, io::pack_nvfp4(layer));
}
void write(const Settings& settings, const QuantizedLayer<MXFP4Grid>& layer) {
    write_fp4(settings, io::pack_mxfp4(layer));
}

}  // namespace

Result quantize_to_blocks(Experiment& experiment, const Layer& layer, const Settings& settings,
                          Cpu& backend) {
    const auto onto = [&](const auto& grid, auto write) {
        Methods methods(experiment, settings, grid, write);
        methods.round();
        methods.solve("gptq", GPTQ{});
        methods.solve("qep", QEP{});
        return methods.result;
    };
    if (settings.format.starts_with("gguf-")) {
        const io::GGMLType asked = ggml_type_named(settings.format);
        const io::GGMLType type = ggml_type_for(asked, layer.in);
        require(type != io::GGMLType::F16, "--format " + settings.format + ": columns of weight are",
                layer.in, "a multiple of 32");
        if (type != asked) announce_replacement(asked, type, layer.in);
        return onto(type, [&](const std::string&, const SolvedBlocks& q) {
            io::write_gguf(settings.output, {{"general.architecture", std::string("none")}},
                           {io::gguf_tensor(settings.name + ".weight", q.blocks)});
        });
    }
    const auto write_layer = [&](const std::string&, const auto& q) { write(settings, q.to_host(backend)); };
    const ClipSearch clip = settings.solve.grid.clip;
    if (settings.format == "nvfp4") return onto(NVFP4Grid::for_weights(layer.weights(), clip), write_layer);
    return onto(MXFP4Grid{clip}, write_layer);
}
