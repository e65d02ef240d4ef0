#include <residua/grids/ggml_grid.hpp>
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

template <class G>
void write(const Settings& settings, const QuantizedLayer<G>& layer) {
    const auto blocks = io::pack_ggml(layer);
    io::write_gguf(settings.output, {{"general.architecture", std::string("none")}},
                   {io::gguf_tensor<G>(settings.name + ".weight", blocks, layer.rows)});
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
    const auto onto = [&](const auto& grid) {
        Methods methods(experiment, settings, grid,
                        [&](const std::string&, const auto& q) { write(settings, q.to_host(backend)); });
        methods.round();
        methods.solve("gptq", GPTQ{});
        methods.solve("qep", QEP{});
        return methods.result;
    };
    const ClipSearch clip = settings.solve.grid.clip;
    if (settings.format == "gguf-q4_0") return onto(Q4_0Grid{clip});
    if (settings.format == "gguf-q4_1") return onto(Q4_1Grid{clip});
    if (settings.format == "gguf-q5_0") return onto(Q5_0Grid{clip});
    if (settings.format == "gguf-q5_1") return onto(Q5_1Grid{clip});
    if (settings.format == "gguf-q8_0") return onto(Q8_0Grid{clip});
    if (settings.format == "nvfp4") return onto(NVFP4Grid::for_weights(layer.weights(), clip));
    return onto(MXFP4Grid{clip});
}
