#include <residua/io.hpp>

#include "methods.hpp"

namespace {

using namespace residua;

/// Everything as plain tensors, for programs of one's own.
void write_plain(const Settings& settings, const std::string& method, const Quantized<IntegerGrid>& q,
                 Cpu& backend) {
    const Index m = q.codes.rows();
    const Index n = q.codes.cols();
    const Index groups = q.scales.cols();
    const Matrix<float> values = q.dequantize(backend);
    const auto elements = [](const auto& matrix) {
        return std::span(matrix.data(), std::size_t(matrix.rows() * matrix.cols()));
    };
    io::write_safetensors(
        settings.output,
        {io::tensor_of("scales", {m, groups}, elements(q.scales)),
         io::tensor_of("zeros", {m, groups}, elements(q.zeros)),
         io::tensor_of("dequantized", {m, n}, elements(values)),
         io::tensor_of("group_index", {n}, q.group_index), io::tensor_of("codes", {m, n}, elements(q.codes))},
        {{"format", "residua"},
         {"method", method},
         {"bits", std::to_string(settings.solve.grid.bits)},
         {"group_size", std::to_string(settings.solve.options.group_size)},
         {"damping", std::to_string(q.report.damping)},
         {"input", settings.input},
         {"command", settings.command}});
}

void write(const Settings& settings, const std::string& method, const Quantized<IntegerGrid>& q,
           Cpu& backend) {
    if (settings.format == "residua") return write_plain(settings, method, q, backend);
    const QuantizedLayer<IntegerGrid> layer = q.to_host(backend);
    if (settings.format == "compressed-tensors") {
        const io::PackQuantizedLayer packed = io::pack_quantized(layer);
        io::write_safetensors(settings.output, packed.tensors(settings.name),
                              io::quantization_metadata(packed.config()));
        return;
    }
    if (settings.format == "onnx-matmulnbits")
        return io::write_onnx(settings.output, io::pack_matmul_nbits(layer), settings.name);
    const auto version = settings.format == "gptq-v1" ? io::GPTQVersion::V1 : io::GPTQVersion::V2;
    const io::GPTQLayer packed = io::pack_gptq(layer, version);
    io::write_safetensors(settings.output, packed.tensors(settings.name),
                          io::quantization_metadata(io::GPTQConfig::of(layer, version).to_json()));
}

}  // namespace

Result quantize_to_integers(Experiment& experiment, const Settings& settings, Cpu& backend) {
    Methods methods(experiment, settings, settings.solve.grid,
                    [&](const std::string& method, const auto& q) { write(settings, method, q, backend); });
    methods.round();
    methods.solve("gptq", GPTQ{});
    methods.solve("gptq+rescomp", GPTQResidualComp{});
    methods.solve("gptaq", GPTAQ{});
    methods.solve("rescomp", ResidualComp{});
    methods.solve("qep", QEP{});
    methods.solve("qronos", Qronos{});
    return methods.result;
}
