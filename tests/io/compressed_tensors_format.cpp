#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/formats/compressed_tensors.hpp"
#include "residua/io/formats/fp4.hpp"
#include "residua/io/formats/nf4.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

IntegerGrid grid_of(int bits, Symmetry symmetry, ScaleType type = ScaleType::Float16) {
    return {.bits = bits, .symmetry = symmetry, .scale_type = type};
}

template <class G>
QuantizedLayer<G> counting_layer(const G& grid, Index cols, float scale, float zero = 0) {
    auto layer = QuantizedLayer<G>::of_shape(1, cols, cols, grid);
    layer.scales = {scale};
    layer.zeros = {zero};
    for (Index j = 0; j < cols; ++j) layer.code_view()(0, j) = static_cast<Code>(j % grid.levels());
    return layer;
}

}  // namespace

TEST_CASE("pack-quantized words by hand", "[compressed_tensors]") {
    // signed -8 -7 ... is stored with 8 added: our code
    auto layer = counting_layer(grid_of(4, Symmetry::None), 8, 0.5f, 9);
    layer.rows = 2;
    layer.codes.insert(layer.codes.end(), {15, 15, 15, 15, 0, 0, 0, 0});
    layer.scales.push_back(2.0f);
    layer.zeros.push_back(3);
    const auto packed = io::pack_quantized(layer);
    CHECK(packed.weight_packed == std::vector<std::int32_t>{0x76543210, 0x0000ffff});
    CHECK(packed.weight_zero_point == std::vector<std::int32_t>{0x39});
    CHECK(packed.weight_shape == std::array<std::int64_t, 2>{2, 8});
    CHECK(packed.weight_scale ==
          std::vector<std::byte>{std::byte{0}, std::byte{0x38}, std::byte{0}, std::byte{0x40}});
    const auto tensors = packed.tensors("l");
    REQUIRE(tensors.size() == 4);
    CHECK(tensors[0].shape == std::vector<Index>{2, 1});
    CHECK(tensors[1].dtype == io::DType::F16);
    CHECK(tensors[2].dtype == io::DType::I64);
    CHECK(tensors[3].shape == std::vector<Index>{1, 1});
}

TEST_CASE("pack-quantized round trips", "[compressed_tensors]") {
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
        for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted, Symmetry::FullRange}) {
            for (const ScaleType type : {ScaleType::Float32, ScaleType::Float16, ScaleType::BFloat16}) {
                const auto layer =
                    random_quantized(grid_of(bits, symmetry, type), 37, 96, bits == 3 ? 96 : 32);
                const auto packed = io::pack_quantized(layer);
                REQUIRE(same_layer(io::unpack_quantized(packed), layer));
                const nlohmann::json weights = packed.config()["config_groups"]["group_0"]["weights"];
                CHECK(weights["num_bits"] == bits);
                CHECK(weights["symmetric"] == (symmetry != Symmetry::None));
                CHECK(weights["strategy"] == (bits == 3 ? "channel" : "group"));
            }
        }
    }
}

TEST_CASE("pack-quantized refuses what it cannot hold", "[compressed_tensors]") {
    const auto good = random_quantized(grid_of(4, Symmetry::FullRange), 4, 32, 16);
    const auto refusal = [](const auto& layer) {
        return refusal_of([&] { (void)io::pack_quantized(layer); });
    };
    CHECK(refusal(good).empty());
    auto layer = good;
    std::ranges::reverse(layer.group_index);
    CHECK(contains(refusal(layer), "groups are scattered"));
    CHECK(
        contains(refusal(random_quantized(good.grid, 4, 40, 16)), "the columns are 40, expected a multiple"));
    layer = good;
    layer.zeros[1] = 7;
    CHECK(contains(refusal(layer), "a zero of a symmetric grid is 7, expected 8"));
    layer = good;
    layer.scales[1] = 0.1f;
    CHECK(contains(refusal(layer), "a scale is 0.1"));
}

TEST_CASE("NVFP4 and MXFP4 bytes by hand", "[fp4]") {
    const auto nv = io::pack_nvfp4(counting_layer(NVFP4Grid{.tensor_scale = 0.25f}, 16, 1.5f));
    CHECK(nv.weight_packed == std::vector<std::uint8_t>{0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe});
    CHECK(nv.weight_scale == std::vector<std::uint8_t>{0x3c});  // 0 0111 100
    CHECK(nv.weight_global_scale == std::vector<float>{4.0f});
    CHECK(nv.config()["format"] == "nvfp4-pack-quantized");
    const auto mx = io::pack_mxfp4(counting_layer(MXFP4Grid{}, 32, 0.125f));
    CHECK(mx.weight_packed.size() == 16);
    CHECK(mx.weight_packed[8] == 0x10);
    CHECK(mx.weight_scale == std::vector<std::uint8_t>{124});
    CHECK(mx.tensors("l").size() == 2);
    CHECK(mx.config()["config_groups"]["group_0"]["weights"]["group_size"] == 32);
}

TEST_CASE("NVFP4, MXFP4 and NF4 round trips", "[fp4]") {
    const auto nv = random_quantized(NVFP4Grid{.tensor_scale = 0x1p-7f}, 5, 96, 16);
    CHECK(same_layer(io::unpack_nvfp4(io::pack_nvfp4(nv)), nv));
    const auto mx = random_quantized(MXFP4Grid{}, 5, 96, 32);
    CHECK(same_layer(io::unpack_mxfp4(io::pack_mxfp4(mx)), mx));
    const auto nf = random_quantized(NF4Grid{}, 5, 128, 64);
    CHECK(same_layer(io::unpack_nf4(io::pack_nf4(nf)), nf));
    CHECK(io::pack_nf4(counting_layer(NF4Grid{}, 4, 1)).weight == std::vector<std::uint8_t>{0x01, 0x23});
}

TEST_CASE("FP4 formats refuse what they cannot hold", "[fp4]") {
    const auto refusal = [](auto pack, const auto& layer) { return refusal_of([&] { (void)pack(layer); }); };
    const auto nv = random_quantized(NVFP4Grid{}, 2, 64, 32);
    CHECK(contains(refusal(io::pack_nvfp4, nv), "NVFP4: the group size is 32, expected 16"));
    auto mx = random_quantized(MXFP4Grid{}, 2, 64, 32);
    mx.scales[0] = 0.75f;
    CHECK(contains(refusal(io::pack_mxfp4, mx), "a scale is 0.75, expected a power of two"));
    auto fine = random_quantized(NVFP4Grid{}, 2, 64, 16);
    fine.scales[0] = 1.01f;
    CHECK(contains(refusal(io::pack_nvfp4, fine),
                   "a scale is 1.01, expected a positive number that E4M3 holds exactly"));
    auto packed = io::pack_mxfp4(random_quantized(MXFP4Grid{}, 2, 64, 32));
    packed.weight_scale[0] = 255;
    CHECK(contains(refusal(io::unpack_mxfp4, packed), "the code of a scale is 255, expected 1 to 254"));
    packed.weight_packed.pop_back();
    CHECK(contains(refusal(io::unpack_mxfp4, packed), "MXFP4: weight_packed has 63 elements, expected 64"));
}

TEST_CASE("compressed-tensors files", "[compressed_tensors]") {
    const TemporaryFolder folder;
    const auto layer = random_quantized(grid_of(3, Symmetry::None, ScaleType::BFloat16), 8, 64, 32);
    const auto packed = io::pack_quantized(layer);
    io::write_safetensors(folder / "i", packed.tensors("a"));
    const io::SafetensorsFile integers(folder / "i");
    CHECK(same_layer(io::unpack_quantized(io::read_pack_quantized(integers, "a", packed.config())), layer));
    auto config = packed.config();
    config["config_groups"]["group_0"]["weights"]["num_bits"] = 4;
    CHECK(contains(format_error_of([&] { (void)io::read_pack_quantized(integers, "a", config); }),
                   "'a.weight_packed' has shape [8, 6], expected [8, 8]"));
    config["config_groups"]["group_0"]["weights"]["num_bits"] = 33;
    CHECK(contains(refusal_of([&] { (void)io::read_pack_quantized(integers, "a", config); }), "bits is 33"));
    CHECK(contains(format_error_of([&] { (void)io::read_pack_quantized(integers, "b", packed.config()); }),
                   "there is no tensor 'b.weight_scale'"));
    CHECK(contains(format_error_of([&] { (void)io::read_pack_quantized(integers, "a", nlohmann::json()); }),
                   "config_groups/group_0/weights/symmetric is 'null', expected true or false"));
    auto tensors_of_doubles = packed.tensors("a");
    const std::vector<double> doubles(16, 1.0);
    tensors_of_doubles[1] = io::tensor_of("a.weight_scale", {8, 2}, doubles);
    io::write_safetensors(folder / "d", tensors_of_doubles);
    const io::SafetensorsFile with_doubles(folder / "d");
    CHECK(
        contains(format_error_of([&] { (void)io::read_pack_quantized(with_doubles, "a", packed.config()); }),
                 "tensor 'a.weight_scale' has dtype F64, expected F16, BF16 or F32"));
    auto broken = packed;
    broken.weight_scale.pop_back();
    CHECK(contains(refusal_of([&] { (void)io::unpack_quantized(broken); }),
                   "weight_scale has 31 bytes, expected 32"));
    broken = packed;
    broken.weight_zero_point.clear();
    CHECK(contains(refusal_of([&] { (void)io::unpack_quantized(broken); }),
                   "weight_zero_point has 0 elements, expected 2"));

    const auto nv = random_quantized(NVFP4Grid{.tensor_scale = 0.5f}, 2, 32, 16);
    const auto mx = random_quantized(MXFP4Grid{}, 2, 32, 32);
    const auto nv_packed = io::pack_nvfp4(nv);
    auto mx_packed = io::pack_mxfp4(mx);
    io::write_safetensors(folder / "n", nv_packed.tensors("a"));
    io::write_safetensors(folder / "m", mx_packed.tensors("a"));
    CHECK(same_layer(io::unpack_nvfp4(io::read_fp4(io::SafetensorsFile(folder / "n"), "a")), nv));
    CHECK(same_layer(io::unpack_mxfp4(io::read_fp4(io::SafetensorsFile(folder / "m"), "a")), mx));

    const auto nf = random_quantized(NF4Grid{}, 6, 128, 64);
    const auto packed_nf = io::pack_nf4(nf);
    io::write_safetensors(folder / "f", packed_nf.tensors("a"));
    CHECK(same_layer(io::unpack_nf4(io::read_nf4(io::SafetensorsFile(folder / "f"), "a")), nf));
    auto broken_nf = packed_nf;
    broken_nf.quant_state = R"({"blocksize": 60, "shape": [6, 128]})";
    io::write_safetensors(folder / "b", broken_nf.tensors("a"));
    CHECK(contains(format_error_of([&] { (void)io::read_nf4(io::SafetensorsFile(folder / "b"), "a"); }),
                   "expected even blocks that divide the rows of a matrix"));
    auto tensors = mx_packed.tensors("a");
    tensors[1].shape = {1, 2};
    io::write_safetensors(folder / "w", tensors);
    CHECK(contains(format_error_of([&] { (void)io::read_fp4(io::SafetensorsFile(folder / "w"), "a"); }),
                   "has shape [1, 2], expected [2, 1]"));
}
