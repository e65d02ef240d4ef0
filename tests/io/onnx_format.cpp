#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/formats/onnx_matmul.hpp"

using namespace residua;
using namespace residua::test;

TEST_CASE("MatMulNBits bytes by hand", "[onnx]") {
    auto layer =
        QuantizedLayer<IntegerGrid>::of_shape(1, 48, 16, IntegerGrid{.bits = 4, .symmetry = Symmetry::None});
    for (Index j = 0; j < 48; ++j) layer.code_view()(0, j) = static_cast<Code>(j % 16);
    layer.scales = {0.5f, 1, 2};
    layer.zeros = {9, 3, 15};
    const auto packed = io::pack_matmul_nbits(layer);
    std::vector<std::uint8_t> bytes;
    for (int block = 0; block < 3; ++block)
        for (const int byte : {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe})
            bytes.push_back(static_cast<std::uint8_t>(byte));
    CHECK(packed.b == bytes);
    CHECK(packed.scales == layer.scales);
    CHECK(packed.zero_points == std::vector<std::uint8_t>{0x39, 0x0f});
    CHECK(packed.block_size() == 16);

    layer.grid.bits = 2;
    for (Code& code : layer.codes) code = static_cast<Code>(code % 4);
    layer.zeros = {1, 3, 2};
    const auto two = io::pack_matmul_nbits(layer);
    CHECK(two.b == std::vector<std::uint8_t>(12, 0xe4));
    CHECK(two.zero_points == std::vector<std::uint8_t>{0x2d});
}

TEST_CASE("MatMulNBits round trips", "[onnx]") {
    for (const int bits : {2, 4, 8}) {
        for (const Symmetry symmetry : {Symmetry::None, Symmetry::Restricted, Symmetry::FullRange}) {
            const auto layer = random_quantized(IntegerGrid{.bits = bits, .symmetry = symmetry}, 37, 96,
                                                bits == 8 ? 16 : 32);
            const auto packed = io::pack_matmul_nbits(layer);
            CHECK(packed.zero_points.empty() == (symmetry != Symmetry::None));
            CHECK(same_layer(io::unpack_matmul_nbits(packed), layer));
        }
    }
}

TEST_CASE("MatMulNBits refuses what it cannot hold", "[onnx]") {
    const auto refusal = [](int bits, Index cols, Index group_size) {
        return refusal_of([&] {
            (void)io::pack_matmul_nbits(random_quantized(IntegerGrid{.bits = bits}, 4, cols, group_size));
        });
    };
    CHECK(refusal(4, 64, 32).empty());
    CHECK(refusal(3, 64, 32) == "residua: MatMulNBits: bits is 3, expected 2, 4 or 8");
    CHECK(refusal(4, 64, 8) ==
          "residua: MatMulNBits: the group size is 8, expected a power of two, at least 16");
    CHECK(refusal(4, 96, 48) ==
          "residua: MatMulNBits: the group size is 48, expected a power of two, at least 16");
    CHECK(refusal(4, 80, 32) ==
          "residua: MatMulNBits: the columns are 80, expected a multiple of the group size, 32");

    auto packed = io::pack_matmul_nbits(random_quantized(IntegerGrid{.bits = 4}, 4, 64, 32));
    packed.b.pop_back();
    CHECK(refusal_of([&] { (void)io::unpack_matmul_nbits(packed); }) ==
          "residua: unpack_matmul_nbits: b has 127 elements, expected 128");
    packed = io::pack_matmul_nbits(random_quantized(IntegerGrid{.bits = 4}, 4, 64, 32));
    packed.groups = 3;
    CHECK(refusal_of([&] { (void)io::unpack_matmul_nbits(packed); }) ==
          "residua: unpack_matmul_nbits: groups is 3, expected a divisor of the columns, 64");
}

TEST_CASE("an ONNX file by hand", "[onnx]") {
    // Fields as `protoc --decode_raw` shows them: the lengths of all messages, the longest of which takes two bytes.
    const auto path = std::filesystem::temp_directory_path() /
                      ("residua_onnx_" + std::to_string(std::hash<std::string>()(__FILE__)) + ".onnx");
    auto layer = QuantizedLayer<IntegerGrid>::of_shape(
        1, 16, 16, IntegerGrid{.bits = 4, .symmetry = Symmetry::FullRange});
    layer.scales = {0.5f};
    layer.zeros = {8};
    io::write_onnx(path, io::pack_matmul_nbits(layer), "l");
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    file.close();
    std::filesystem::remove(path);
    CHECK(bytes.starts_with(std::string("\x08\x0a\x12\x07residua\x3a", 12)));
    const std::string b("\x2a\x17\x08\x01\x08\x01\x08\x08\x10\x02\x42\x03l.B\x4a\x08\0\0\0\0\0\0\0\0", 25);
    CHECK(bytes.find(b) != std::string::npos);
    const std::string scales("\x2a\x16\x08\x01\x08\x01\x10\x01\x42\x08l.scales\x4a\x04\0\0\0\x3f", 24);
    CHECK(bytes.find(scales) != std::string::npos);
    CHECK(
        bytes.ends_with(std::string("\x42\x04\x0a\0\x10\x15\x42\x11\x0a\x0d"
                                    "com.microsoft\x10\x01",
                                    25)));
}
