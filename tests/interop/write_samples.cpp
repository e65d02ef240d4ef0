/// write_samples <folder>: a layer in every format, each with its dequantized weights beside it
/// (<case>.expected.safetensors), for check.py to read with other people's code.

#include <filesystem>
#include <iostream>
#include <string>

#include "../io/packed_layers.hpp"
#include "residua/io.hpp"

namespace {

using namespace residua;
using test::random_quantized;

std::filesystem::path folder;

template <class G>
void write_expected(const std::string& name, const QuantizedLayer<G>& layer) {
    const Matrix<float> values = layer.dequantize();
    const std::span elements(values.data(), static_cast<std::size_t>(values.rows() * values.cols()));
    io::write_safetensors(folder / (name + ".expected.safetensors"),
                          {io::tensor_of("expected", {values.rows(), values.cols()}, elements)});
}

template <class Packed>
void write_tensors(const std::string& name, const Packed& packed, const nlohmann::json& config) {
    io::write_safetensors(folder / (name + ".safetensors"), packed.tensors("layer"),
                          io::quantization_metadata(config));
}

void write_gptq(int bits, Symmetry symmetry, bool scattered) {
    for (const auto version : {io::GPTQVersion::V1, io::GPTQVersion::V2}) {
        const IntegerGrid grid{.bits = bits, .symmetry = symmetry, .scale_type = ScaleType::Float16};
        auto layer = random_quantized(grid, 96, 256, 64, static_cast<std::uint64_t>(bits));
        if (version == io::GPTQVersion::V1) {
            for (float& zero : layer.zeros) zero = std::max(zero, 1.0f);
        }
        if (scattered) {
            for (std::size_t j = 0; j < layer.group_index.size(); ++j)
                layer.group_index[j] = static_cast<std::int32_t>(j % 4);
        }
        const std::string name = std::string("gptq_") + (version == io::GPTQVersion::V1 ? "v1_" : "v2_") +
                                 std::to_string(bits) + (symmetry == Symmetry::None ? "_asym" : "_sym") +
                                 (scattered ? "_actorder" : "");
        write_expected(name, layer);
        write_tensors(name, io::pack_gptq(layer, version), io::GPTQConfig::of(layer, version).to_json());
    }
}

void write_compressed_tensors(int bits, Symmetry symmetry, ScaleType type, Index group_size) {
    const IntegerGrid grid{.bits = bits, .symmetry = symmetry, .scale_type = type};
    const auto layer = random_quantized(grid, 96, 256, group_size, static_cast<std::uint64_t>(bits));
    const std::string name = "pack-quantized_" + std::to_string(bits) +
                             (symmetry == Symmetry::None ? "_asym" : "_sym") +
                             (type == ScaleType::Float32 ? "_f32" : "_f16");
    write_expected(name, layer);
    const auto packed = io::pack_quantized(layer);
    write_tensors(name, packed, packed.config());
}

template <class G>
void write_gguf() {
    const auto layer = random_quantized(G{}, 48, 256, 32);
    const std::string name = std::string("gguf_") + io::GGMLFormat<G>::name;
    write_expected(name, layer);
    const auto blocks = io::pack_ggml(layer);
    const std::vector<float> norm(3, 1.0f);
    io::write_gguf(
        folder / (name + ".gguf"), {{"general.architecture", std::string("none")}},
        {io::gguf_tensor("norm.weight", {3}, norm), io::gguf_tensor<G>("layer.weight", blocks, 48)});
}

template <class G>
void write_super_blocks(const G& grid) {
    const auto layer = random_quantized(grid, 48, 512, G::group_size);
    const auto packed = io::pack_super_blocks(layer);
    const std::string name = "gguf_" + name_of(packed.type);
    write_expected(name, layer);
    io::write_gguf(folder / (name + ".gguf"), {{"general.architecture", std::string("none")}},
                   {io::gguf_tensor("layer.weight", packed)});
}

void write_all() {
    for (const int bits : {2, 3, 4, 8}) {
        write_gptq(bits, Symmetry::None, false);
        write_gptq(bits, Symmetry::FullRange, false);
        write_gptq(bits, Symmetry::Restricted, true);
    }
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
        write_compressed_tensors(bits, Symmetry::None, ScaleType::Float32, 32);
        write_compressed_tensors(bits, Symmetry::FullRange, ScaleType::Float16, bits == 4 ? 128 : 256);
    }
    write_gguf<Q4_0Grid>();
    write_gguf<Q4_1Grid>();
    write_gguf<Q5_0Grid>();
    write_gguf<Q5_1Grid>();
    write_gguf<Q8_0Grid>();
    write_gguf<MXFP4Grid>();
    for (const int bits : {2, 3, 6}) write_super_blocks(KQuantGrid<16>{.bits = bits});
    for (const int bits : {4, 5}) write_super_blocks(KQuantGrid<32>{.bits = bits});
    for (const bool nested : {false, true}) write_super_blocks(IQ4Grid{.nested = nested});

    const auto nvfp4 = random_quantized(NVFP4Grid{.tensor_scale = 0x1p-8f}, 32, 128, 16);
    const auto nvfp4_packed = io::pack_nvfp4(nvfp4);
    write_expected("nvfp4", nvfp4);
    write_tensors("nvfp4", nvfp4_packed, nvfp4_packed.config());

    const auto mxfp4 = random_quantized(MXFP4Grid{}, 32, 128, 32);
    const auto mxfp4_packed = io::pack_mxfp4(mxfp4);
    write_expected("mxfp4", mxfp4);
    write_tensors("mxfp4", mxfp4_packed, mxfp4_packed.config());

    const auto nf4 = random_quantized(NF4Grid{}, 32, 128, 64);
    write_expected("nf4", nf4);
    write_tensors("nf4", io::pack_nf4(nf4), nlohmann::json::object());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: write_samples FOLDER\n";
        return 2;
    }
    try {
        folder = argv[1];
        std::filesystem::create_directories(folder);
        write_all();
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
