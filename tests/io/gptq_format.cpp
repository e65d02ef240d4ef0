#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/formats/gptq.hpp"
#include "residua/io/formats/model_config.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;
using io::GPTQVersion;

namespace {

using IntegerLayer = QuantizedLayer<IntegerGrid>;
using Words = std::vector<std::int32_t>;

IntegerGrid gptq_grid(int bits, Symmetry symmetry = Symmetry::None) {
    return {.bits = bits, .symmetry = symmetry, .scale_type = ScaleType::Float16};
}

/// Two outputs of ascending and of largest codes, one group, zeros 1 and `zero`.
IntegerLayer small_layer(int bits, Index cols, float zero) {
    IntegerLayer layer = IntegerLayer::of_shape(2, cols, cols, gptq_grid(bits));
    layer.scales = {0.5f, 2.0f};
    layer.zeros = {1, zero};
    for (Index j = 0; j < cols; ++j) {
        layer.code_view()(0, j) = static_cast<Code>(j % (1 << bits));
        layer.code_view()(1, j) = static_cast<Code>((1 << bits) - 1);
    }
    return layer;
}

std::int32_t word(std::uint32_t value) { return static_cast<std::int32_t>(value); }

}  // namespace

TEST_CASE("GPTQ words by hand", "[gptq]") {
    struct Case {
        int bits;
        Index cols;
        float zero;
        Words qweight;  // (words of K, 2): ascending codes, all ones
        Words qzeros_v1, qzeros_v2;
    };
    const Case cases[] = {
        {2, 16, 3, {word(0xe4e4e4e4), -1}, {0b1000}, {0b1101}},
        {3,
         32,
         7,
         {word(0x88fac688), -1, word(0xc688fac6), -1, word(0xfac688fa), -1},
         {0b110000},
         {0b111001}},
        {4, 8, 9, {word(0x76543210), -1}, {0x80}, {0x91}},
        {8, 4, 255, {word(0x03020100), -1}, {0xfe00}, {0xff01}},
    };
    for (const Case& c : cases) {
        CAPTURE(c.bits);
        const IntegerLayer layer = small_layer(c.bits, c.cols, c.zero);
        const auto v1 = io::pack_gptq(layer, GPTQVersion::V1);
        const auto v2 = io::pack_gptq(layer, GPTQVersion::V2);
        CHECK(v1.qweight == c.qweight);
        CHECK(v2.qweight == c.qweight);
        CHECK(v1.qzeros == c.qzeros_v1);
        CHECK(v2.qzeros == c.qzeros_v2);
        CHECK(v2.scales.size() == 2);
        CHECK(v2.scales[0].bits == 0x3800);
        CHECK(v2.scales[1].bits == 0x4000);
        CHECK(same_layer(io::unpack_gptq(v1), layer));
        CHECK(same_layer(io::unpack_gptq(v2), layer));
    }
}

TEST_CASE("GPTQ round trips", "[gptq]") {
    for (const int bits : {2, 3, 4, 8}) {
        for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted, Symmetry::FullRange}) {
            for (const auto& [m, n, size] : {std::tuple<Index, Index, Index>{64, 128, 32},
                                             {1, 1, 1},
                                             {33, 65, 16},
                                             {17, 100, 100},
                                             {40, 96, 64}}) {
                CAPTURE(bits, int(symmetry), m, n, size);
                IntegerLayer layer = random_quantized(gptq_grid(bits, symmetry), m, n, size);
                for (float& zero : layer.zeros) zero = std::max(zero, 1.0f);
                for (const GPTQVersion stored : {GPTQVersion::V1, GPTQVersion::V2}) {
                    const auto packed = io::pack_gptq(layer, stored);
                    REQUIRE(std::ssize(packed.qweight) == (n * bits + 31) / 32 * m);
                    REQUIRE(std::ssize(packed.qzeros) == layer.groups * ((m * bits + 31) / 32));
                    const IntegerLayer back = io::unpack_gptq(packed);
                    REQUIRE(same_layer(back, layer));
                    const auto a = back.dequantize();
                    const auto b = layer.dequantize();
                    REQUIRE(std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data()));
                }
            }
        }
    }
}

TEST_CASE("GPTQ files", "[gptq]") {
    const TemporaryFolder folder;
    IntegerLayer layer = random_quantized(gptq_grid(3), 24, 64, 16);
    std::ranges::reverse(layer.group_index);
    const auto packed = io::pack_gptq(layer);
    const auto config = io::GPTQConfig::of(layer, GPTQVersion::V2);
    io::write_safetensors(folder / "f.safetensors", packed.tensors("a.b"),
                          io::quantization_metadata(config.to_json()));

    const io::SafetensorsFile file(folder / "f.safetensors");
    CHECK(file.info("a.b.qweight").dtype == io::DType::I32);
    CHECK(file.info("a.b.qweight").shape == std::vector<Index>{6, 24});
    CHECK(file.info("a.b.qzeros").shape == std::vector<Index>{4, 3});
    CHECK(file.info("a.b.scales").dtype == io::DType::F16);
    CHECK(file.info("a.b.scales").shape == std::vector<Index>{4, 24});
    CHECK(file.info("a.b.g_idx").shape == std::vector<Index>{64});
    const auto found = io::GPTQConfig::from_json(io::find_quantization_config(file));
    CHECK(found.desc_act);
    CHECK(same_layer(io::unpack_gptq(io::read_gptq(file, "a.b", found.bits, found.version)), layer));

    CHECK(contains(format_error_of([&] { (void)io::read_gptq(file, "a.b", 4, GPTQVersion::V2); }),
                   "'a.b.qweight' has shape [6, 24], expected [8, 24]"));
    CHECK(contains(format_error_of([&] { (void)io::read_gptq(file, "a", 3, GPTQVersion::V2); }),
                   "there is no tensor 'a.scales'"));
    auto wrong = packed;
    wrong.g_idx[5] = 4;
    io::write_safetensors(folder / "g.safetensors", wrong.tensors("a.b"));
    const io::SafetensorsFile other(folder / "g.safetensors");
    CHECK(contains(format_error_of([&] { (void)io::read_gptq(other, "a.b", 3, GPTQVersion::V2); }),
                   "holds 4, expected 0 to 3"));
}

TEST_CASE("GPTQ refuses what the format cannot hold", "[gptq]") {
    const IntegerLayer good = random_quantized(gptq_grid(4), 4, 32, 16);
    const auto refusal = [](const IntegerLayer& layer, GPTQVersion stored = GPTQVersion::V2) {
        return refusal_of([&] { (void)io::pack_gptq(layer, stored); });
    };
    CHECK(refusal(good).empty());

    IntegerLayer layer = good;
    layer.grid.bits = 5;
    CHECK(contains(refusal(layer), "bits is 5, expected 2, 3, 4 or 8"));
    layer = good;
    layer.scales[3] = 0.1f;
    CHECK(contains(refusal(layer), "a scale is 0.1, expected a positive number that float16 holds exactly"));
    layer.scales[3] = 0;
    CHECK(contains(refusal(layer), "a scale is 0"));
    layer.scales[3] = 1e6f;
    CHECK(contains(refusal(layer), "a scale is 1e+06"));
    layer = good;
    layer.zeros[2] = 0;
    CHECK(contains(refusal(layer, GPTQVersion::V1), "version 1: a zero is 0, expected at least 1"));
    CHECK(refusal(layer, GPTQVersion::V2).empty());
    layer.zeros[2] = 1.5f;
    CHECK(contains(refusal(layer), "GPTQ format: a zero is 1.5, expected a whole number from 0 to 15"));
    layer.zeros[2] = 16;
    CHECK(contains(refusal(layer), "a zero is 16"));
    layer = good;
    layer.codes[7] = 16;
    CHECK(contains(refusal(layer), "codes has at (0, 7) the code 16, expected at most 15"));
    layer = good;
    layer.group_index[0] = 1;
    CHECK(contains(refusal(layer), "group 1 has 17 columns, expected 15, as group 0 has"));
    layer.group_index[0] = 2;
    CHECK(contains(refusal(layer), "group_index holds 2"));
    layer = good;
    layer.scales.pop_back();
    CHECK(contains(refusal(layer), "QuantizedLayer: scales has 7 elements, expected 8"));
}

TEST_CASE("GPTQ members that do not fit together are refused", "[gptq]") {
    const auto good = io::pack_gptq(random_quantized(gptq_grid(4), 8, 32, 16));
    const auto refusal = [](const io::GPTQLayer& packed) {
        return refusal_of([&] { (void)io::unpack_gptq(packed); });
    };
    CHECK(refusal(good).empty());
    auto packed = good;
    packed.qweight.pop_back();
    CHECK(contains(refusal(packed), "unpack_gptq: qweight has 31 elements, expected 32"));
    packed = good;
    packed.scales.clear();
    CHECK(contains(refusal(packed), "unpack_gptq: scales has 0 elements, expected 16"));
    packed = good;
    packed.groups = 0;
    CHECK(contains(refusal(packed), "groups are [32, 8, 0], expected at least 1 each"));
    packed = good;
    packed.g_idx[0] = 2;
    CHECK(contains(refusal(packed), "group_index holds 2, expected 0 to 1"));
}

TEST_CASE("GPTQ settings", "[gptq]") {
    const TemporaryFolder folder;
    IntegerLayer layer = random_quantized(gptq_grid(4, Symmetry::FullRange), 4, 32, 16);
    auto json = io::GPTQConfig::of(layer, GPTQVersion::V1).to_json();
    CHECK(json["bits"] == 4);
    CHECK(json["group_size"] == 16);
    CHECK(json["desc_act"] == false);
    CHECK(json["sym"] == true);
    CHECK(json["lm_head"] == false);
    CHECK(json["quant_method"] == "gptq");
    CHECK(json["checkpoint_format"] == "gptq");
    CHECK(json["pack_dtype"] == "int32");
    CHECK(json["meta"].contains("quantizer"));

    layer = random_quantized(gptq_grid(4), 4, 32, 32);
    json = io::GPTQConfig::of(layer, GPTQVersion::V2).to_json();
    CHECK(json["group_size"] == -1);
    CHECK(json["sym"] == false);
    CHECK(json["checkpoint_format"] == "gptq_v2");

    CHECK(io::GPTQConfig::from_json({{"bits", 3}, {"group_size", 64}, {"desc_act", nullptr}}).bits == 3);
    const auto misread = [](const nlohmann::json& settings) {
        return format_error_of([&] { (void)io::GPTQConfig::from_json(settings); });
    };
    CHECK(contains(misread(nlohmann::json()), "bits is 'null', expected a whole number"));
    CHECK(contains(misread({{"bits", "four"}}), "bits is '\"four\"', expected a whole number"));
    CHECK(contains(misread({{"bits", 4}, {"group_size", 128}, {"sym", 1}}),
                   "sym is '1', expected true or false"));

    folder.write("config.json", R"({"model_type": "llama", "quantization_config": {"bits": 2}})");
    io::write_quantization_config(folder.path(), json);
    CHECK(io::read_json(folder / "quantize_config.json") == json);
    const auto config = io::read_json(folder / "config.json");
    CHECK(config["model_type"] == "llama");
    CHECK(config["quantization_config"] == json);

    folder.write("config.json", "[1]");
    CHECK(contains(format_error_of([&] { io::write_quantization_config(folder.path(), json); }),
                   "not a JSON object"));
}
