/// Sizes, numbers and depths of files that nobody vouches for: checked before anything is computed with them.

#include <limits>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/formats/compressed_tensors.hpp"
#include "residua/io/formats/fp4.hpp"
#include "residua/io/formats/gptq.hpp"
#include "residua/io/formats/model_config.hpp"
#include "residua/io/formats/nf4.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

constexpr Index beyond = (Index(1) << 62) + 8;  // times 4 it is 32 in 64 bits

/// {"a":{"a": ... {}}}, `levels` objects.
std::string nested_json(int levels) {
    std::string text;
    for (int i = 1; i < levels; ++i) text += "{\"a\":";
    text += "{}";
    return text + std::string(std::size_t(levels - 1), '}');
}

}  // namespace

TEST_CASE("settings that are nested too deep are refused", "[untrusted]") {
    const TemporaryFolder folder;
    folder.write("config.json", "{\"quantization_config\":" + nested_json(200'000) + "}");
    CHECK(contains(format_error_of([&] { (void)io::read_json(folder / "config.json"); }),
                   "the file is nested deeper than 64 levels"));
    io::write_safetensors(folder / "model.safetensors", {});
    const io::SafetensorsFile beside(folder / "model.safetensors");
    CHECK(contains(format_error_of([&] { (void)io::find_quantization_config(beside); }), "nested deeper"));
    io::write_safetensors(folder / "inside.safetensors", {}, {{"quantization_config", nested_json(200'000)}});
    const io::SafetensorsFile inside(folder / "inside.safetensors");
    CHECK(contains(format_error_of([&] { (void)io::find_quantization_config(inside); }),
                   "the metadata entry quantization_config is nested deeper"));

    folder.write("config.json",
                 "{\"text\":\"[[[[\\\"{{{{\",\"quantization_config\":" + nested_json(63) + "}");
    CHECK(io::find_quantization_config(beside).size() == 1);
    folder.write("config.json", "{\"quantization_config\":" + nested_json(64) + "}");
    CHECK(contains(format_error_of([&] { (void)io::read_json(folder / "config.json"); }), "nested deeper"));
}

TEST_CASE("settings beyond their types, or of other formats, are refused by name", "[untrusted]") {
    const auto refusal = [](const char* name, const nlohmann::json& value) {
        nlohmann::json json{{"bits", 4}, {"group_size", 128}};
        json[name] = value;
        return format_error_of([&] { (void)io::GPTQConfig::from_json(json); });
    };
    CHECK(contains(refusal("bits", 1e300), "bits is '1e+300', expected a whole number"));
    CHECK(contains(refusal("bits", std::int64_t(1) << 32), "expected a number of at most 31 bits"));
    CHECK(contains(refusal("bits", -(std::int64_t(1) << 32)), "expected a number of at most 31 bits"));
    CHECK(contains(refusal("group_size", std::numeric_limits<std::uint64_t>::max()), "at most 63 bits"));
    CHECK(contains(refusal("quant_method", "awq"), "quant_method is 'awq', expected 'gptq'"));
    CHECK(contains(refusal("checkpoint_format", "marlin"), "checkpoint_format is 'marlin', expected 'gptq'"));
    CHECK(refusal("quant_method", "gptq").empty());
}

TEST_CASE("sizes are checked before they are multiplied", "[untrusted]") {
    static_assert(packed_words(beyond, 4) == beyond / 8);
    static_assert(packed_words(std::numeric_limits<Index>::max(), 8) == (Index(1) << 61));
    for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8})
        for (Index count = 0; count < 200; ++count)
            CHECK(packed_words(count, bits) == (count * bits + 31) / 32);

    const TemporaryFolder folder;
    const std::vector<std::int64_t> shape = {1, beyond};
    const std::vector<std::int32_t> words(4);
    const std::vector<float> scales(1, 1.0f);
    io::write_safetensors(folder / "f", {io::tensor_of("l.weight_shape", {2}, shape),
                                         io::tensor_of("l.weight_packed", {1, 4}, words),
                                         io::tensor_of("l.weight_scale", {1, 1}, scales)});
    const io::SafetensorsFile file(folder / "f");
    const nlohmann::json config =
        nlohmann::json::parse(R"({"config_groups":{"group_0":{"weights":{"num_bits":4,"symmetric":true}}}})");
    CHECK(contains(format_error_of([&] { (void)io::read_pack_quantized(file, "l", config); }),
                   "tensor 'l.weight_packed' has shape [1, 4], expected [1, 576460752303423489]"));

    const auto too_large = [](const auto& call) {
        const std::string text = refusal_of(call);
        CAPTURE(text);
        CHECK((contains(text, "2^6") || contains(text, "elements, expected")));
    };
    too_large([&] { (void)io::unpack_quantized({.rows = beyond, .cols = beyond, .groups = 1}); });
    too_large([&] { (void)io::unpack_quantized({.rows = 1, .cols = beyond, .groups = 1}); });
    too_large([&] { (void)io::unpack_gptq({.in_features = beyond, .out_features = 8, .groups = 1}); });
    too_large([&] { (void)io::unpack_gptq({.in_features = 8, .out_features = 8, .groups = beyond}); });
    too_large([&] { (void)io::unpack_mxfp4({.rows = beyond, .cols = 32}); });
    too_large([&] { (void)io::unpack_nf4({.rows = beyond, .cols = 64}); });
    too_large([&] { (void)QuantizedLayer<IntegerGrid>::of_shape(beyond, 8, 8); });
    QuantizedLayer<IntegerGrid> layer{.rows = beyond, .cols = 4, .groups = 1};
    too_large([&] { layer.validate(); });
    too_large([&] { (void)Matrix<float>(beyond, 4); });
}

TEST_CASE("layers in an order of activations are refused where nothing tells the order", "[untrusted]") {
    const TemporaryFolder folder;
    const auto layer = random_quantized(IntegerGrid{.bits = 4, .scale_type = ScaleType::Float16}, 4, 32, 16);
    const io::PackQuantizedLayer packed = io::pack_quantized(layer);
    auto tensors = packed.tensors("l");
    const nlohmann::json config = packed.config();
    io::write_safetensors(folder / "f", tensors);
    CHECK(same_layer(layer, io::unpack_quantized(
                                io::read_pack_quantized(io::SafetensorsFile(folder / "f"), "l", config))));
    const std::vector<std::int32_t> order(32);
    tensors.push_back(io::tensor_of("l.weight_g_idx", {32}, order));
    io::write_safetensors(folder / "f", tensors);
    const io::SafetensorsFile file(folder / "f");
    CHECK(contains(format_error_of([&] { (void)io::read_pack_quantized(file, "l", config); }),
                   "tensor 'l.weight_g_idx' is there, expected a layer without activation order"));
}

TEST_CASE("text of files cannot control a terminal", "[untrusted]") {
    CHECK(io::detail::in_quotes("a\x1b[31mb\x7f") == "'a?[31mb?'");
    CHECK(io::detail::in_quotes("a\xc2\x9b"
                                "31m\xc3\xa9") == "'a?31m\xc3\xa9'");
}
