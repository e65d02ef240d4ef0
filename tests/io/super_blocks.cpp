#include <string>
#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/gguf/file.hpp"
#include "residua/io/gguf/super_blocks.hpp"
#include "residua/io/gguf/writer.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

/// A super-block of codes 0 with these parameters.
template <class G>
QuantizedLayer<G> super_block(const G& grid, const std::vector<float>& scales,
                              const std::vector<float>& zeros = {}) {
    auto layer = QuantizedLayer<G>::of_shape(1, G::group_size * grid.family(), G::group_size, grid);
    layer.scales = scales;
    if (!zeros.empty()) layer.zeros = zeros;
    return layer;
}

std::vector<int> bytes_of(const io::GGMLMatrix& matrix, std::size_t from, std::size_t count) {
    std::vector<int> values;
    for (std::size_t i = from; i < from + count; ++i) values.push_back(static_cast<int>(matrix.bytes.at(i)));
    return values;
}

/// Which bytes a code at `column` changes, and to what, "at:value".
template <class G>
std::string changed_by(QuantizedLayer<G> layer, Index column, int code) {
    const auto before = io::pack_super_blocks(layer).bytes;
    layer.codes[static_cast<std::size_t>(column)] = static_cast<Code>(code);
    const auto after = io::pack_super_blocks(layer).bytes;
    std::string text;
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (before[i] != after[i])
            text += (text.empty() ? "" : " ") + std::to_string(i) + ":" + std::to_string(int(after[i]));
    }
    return text;
}

template <class G>
void check_super_blocks(const G& grid, Index cols = 512) {
    const auto layer = random_quantized(grid, 3, cols, G::group_size);
    const io::GGMLMatrix packed = io::pack_super_blocks(layer);
    CAPTURE(name_of(packed.type));
    CHECK(std::cmp_equal(packed.bytes.size(), io::detail::byte_count(*io::detail::facts_of(packed.type),
                                                                     std::vector<Index>{3, cols})));
    CHECK(same_layer(io::unpack_super_blocks<G>(packed.type, packed.bytes, 3), layer));
    const TemporaryFolder folder;
    io::write_gguf(folder / "k.gguf", {}, {io::gguf_tensor("w", packed)});
    CHECK(same_layer(io::GGUFFile(folder / "k.gguf").layer<G>("w"), layer));
}

}  // namespace

TEST_CASE("Scales of super-blocks by hand", "[gguf]") {
    SECTION("Q4_K: six bits of four scales, of four minima, and the rest") {
        const auto layer = super_block(KQuantGrid<32>{.bits = 4}, {1, 2, 3, 4, 17, 34, 51, 63},
                                       {-31.5f, -2.5f, -3, -3.5f, -4, -12.5f, -21, -29.5f});  // dmin = 0.5
        const auto packed = io::pack_super_blocks(layer);
        CHECK(bytes_of(packed, 0, 16) == std::vector<int>{0x00, 0x3c, 0x00, 0x38, 0x41, 0x82, 0xc3, 0xc4,
                                                          0x3f, 0x45, 0x86, 0xc7, 0x81, 0x92, 0xa3, 0xbf});
        CHECK(io::pack_super_blocks(super_block(KQuantGrid<32>{.bits = 5}, layer.scales, layer.zeros))
                  .bytes.size() == 176);
    }
    SECTION("Q2_K: a nibble each") {
        std::vector<float> scales(16, 3), zeros(16, -1);
        scales[0] = 15;
        zeros[1] = -15;
        const auto packed = io::pack_super_blocks(super_block(KQuantGrid<16>{.bits = 2}, scales, zeros));
        CHECK(bytes_of(packed, 0, 3) == std::vector<int>{0x1f, 0xf3, 0x13});
        CHECK(bytes_of(packed, 80, 4) == std::vector<int>{0x00, 0x3c, 0x00, 0x3c});
    }
    SECTION("Q3_K: 32 is added, low nibbles and top bits apart") {
        std::vector<float> scales(16, 0);  // stored as 32: nibble 0, top bits 2
        scales[0] = -64;                   // d = 2, -32: 0
        scales[9] = 62;                    // 31: 63
        scales[15] = 2;                    // 1: 33
        const auto packed = io::pack_super_blocks(super_block(KQuantGrid<16>{.bits = 3}, scales));
        CHECK(bytes_of(packed, 96, 14) ==
              std::vector<int>{0, 0xf0, 0, 0, 0, 0, 0, 0x10, 0xa8, 0xba, 0xaa, 0xaa, 0x00, 0x40});
    }
    SECTION("Q6_K: signed bytes") {
        std::vector<float> scales(16, 0.5f);
        scales[0] = -64;
        const auto packed = io::pack_super_blocks(super_block(KQuantGrid<16>{.bits = 6}, scales));
        CHECK(bytes_of(packed, 192, 2) == std::vector<int>{0x80, 0x01});
        CHECK(bytes_of(packed, 208, 2) == std::vector<int>{0x00, 0x38});
    }
    SECTION("IQ4_XS: as Q3_K; IQ4_NL: a float16") {
        std::vector<float> scales(8, 1);  // 33
        scales[0] = -32;
        const auto packed = io::pack_super_blocks(super_block(IQ4Grid{.nested = true}, scales));
        CHECK(bytes_of(packed, 0, 8) == std::vector<int>{0x00, 0x3c, 0xa8, 0xaa, 0x10, 0x11, 0x11, 0x11});
        CHECK(bytes_of(io::pack_super_blocks(super_block(IQ4Grid{.nested = false}, {-2})), 0, 2) ==
              std::vector<int>{0x00, 0xc0});
    }
}

TEST_CASE("Codes of super-blocks by hand", "[gguf]") {
    const std::vector<float> eight(8, 1), sixteen(16, 1);
    const auto q2 = super_block(KQuantGrid<16>{.bits = 2}, sixteen);
    CHECK(changed_by(q2, 0, 3) == "16:3");
    CHECK(changed_by(q2, 33, 2) == "17:8");
    CHECK(changed_by(q2, 255, 1) == "79:64");
    const auto q3 = super_block(KQuantGrid<16>{.bits = 3}, sixteen);
    CHECK(changed_by(q3, 32, 7) == "0:2 32:12");
    CHECK(changed_by(q3, 255, 5) == "31:128 95:64");
    const auto q4 = super_block(KQuantGrid<32>{.bits = 4}, eight);
    CHECK(changed_by(q4, 0, 9) == "16:9");
    CHECK(changed_by(q4, 32, 9) == "16:144");
    CHECK(changed_by(q4, 64, 9) == "48:9");
    const auto q5 = super_block(KQuantGrid<32>{.bits = 5}, eight);
    CHECK(changed_by(q5, 1, 17) == "17:1 49:1");
    CHECK(changed_by(q5, 255, 31) == "47:128 175:240");
    const auto q6 = super_block(KQuantGrid<16>{.bits = 6}, sixteen);
    CHECK(changed_by(q6, 0, 63) == "0:15 128:3");
    CHECK(changed_by(q6, 40, 33) == "40:1 136:8");
    CHECK(changed_by(q6, 64, 18) == "0:32 128:16");
    CHECK(changed_by(q6, 255, 63) == "127:240 191:192");
    const auto xs = super_block(IQ4Grid{.nested = true}, eight);
    CHECK(changed_by(xs, 0, 7) == "8:7");
    CHECK(changed_by(xs, 16, 7) == "8:112");
    CHECK(changed_by(xs, 255, 15) == "135:240");
    CHECK(changed_by(super_block(IQ4Grid{.nested = false}, {1}), 17, 8) == "3:128");
}

TEST_CASE("Round trips of super-blocks", "[gguf]") {
    check_super_blocks(KQuantGrid<16>{.bits = 2});
    check_super_blocks(KQuantGrid<16>{.bits = 3});
    check_super_blocks(KQuantGrid<16>{.bits = 6});
    check_super_blocks(KQuantGrid<32>{.bits = 4});
    check_super_blocks(KQuantGrid<32>{.bits = 5});
    check_super_blocks(IQ4Grid{.nested = true});
    check_super_blocks(IQ4Grid{.nested = false}, 96);
}

TEST_CASE("Super-blocks refuse what they cannot hold", "[gguf]") {
    const auto refusal = [](const auto& layer) {
        return refusal_of([&] { (void)io::pack_super_blocks(layer); });
    };
    const KQuantGrid<32> q4_k{.bits = 4};
    CHECK(contains(refusal(random_quantized(q4_k, 2, 288, 32)),
                   "Q4_K: the columns are 288, expected a multiple of 256, a block"));
    CHECK(contains(refusal(random_quantized(q4_k, 2, 256, 64)), "Q4_K: the group size is 64, expected 32"));
    auto layer = random_quantized(q4_k, 1, 256, 32);
    layer.scales[3] *= 1.01f;
    CHECK(contains(refusal(layer), "Q4_K: a scale or minimum is"));
    layer = random_quantized(q4_k, 1, 256, 32);
    std::swap(layer.group_index[0], layer.group_index[255]);
    CHECK(contains(refusal(layer), "Q4_K: groups are scattered over the columns"));

    const auto packed = io::pack_super_blocks(random_quantized(q4_k, 2, 256, 32));
    const auto unpacking = [&](io::GGMLType type, std::size_t size, Index rows) {
        return refusal_of([&] {
            (void)io::unpack_super_blocks<KQuantGrid<32>>(type, std::span(packed.bytes).first(size), rows);
        });
    };
    CHECK(unpacking(packed.type, packed.bytes.size(), 2).empty());
    CHECK(contains(unpacking(packed.type, packed.bytes.size() - 1, 2),
                   "Q4_K: the bytes are 287, expected blocks of 144"));
    CHECK(contains(unpacking(packed.type, packed.bytes.size(), 3), "as many for each of 3 rows"));
    CHECK(contains(unpacking(io::GGMLType::Q6_K, packed.bytes.size(), 2),
                   "unpack_super_blocks: the type is Q6_K, expected one that stores the grid"));
    const TemporaryFolder folder;
    io::write_gguf(folder / "k.gguf", {}, {io::gguf_tensor("w", packed)});
    CHECK(contains(format_error_of([&] { (void)io::GGUFFile(folder / "k.gguf").layer<KQuantGrid<16>>("w"); }),
                   "tensor 'w' has type Q4_K and rank 2, expected a matrix of Q2_K or Q3_K or Q6_K"));
}
