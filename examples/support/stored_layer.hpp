#pragma once

#include <residua/io.hpp>
#include <string>

/// f(format, layer) with the QuantizedLayer of any grid that a safetensors file or checkpoint holds under `name`, where
/// it holds one: whether it does. `config`: quantization_config, as the format needs it.
template <class F>
bool visit_stored_layer(const residua::io::TensorTable& file, const std::string& name,
                        const nlohmann::json& config, F f) {
    using namespace residua;
    if (file.contains(name + ".qweight")) {
        const auto settings = io::GPTQConfig::from_json(config);
        f(settings.version == io::GPTQVersion::V1 ? "GPTQ v1" : "GPTQ v2",
          io::unpack_gptq(io::read_gptq(file, name, settings.bits, settings.version)));
    } else if (file.contains(name + ".weight_shape")) {
        f("pack-quantized", io::unpack_quantized(io::read_pack_quantized(file, name, config)));
    } else if (file.contains(name + ".weight_packed")) {
        const io::FP4Layer packed = io::read_fp4(file, name);
        packed.is_nvfp4 ? f("NVFP4", io::unpack_nvfp4(packed)) : f("MXFP4", io::unpack_mxfp4(packed));
    } else if (file.contains(name + ".weight.absmax")) {
        f("NF4", io::unpack_nf4(io::read_nf4(file, name)));
    } else {
        return false;
    }
    return true;
}
