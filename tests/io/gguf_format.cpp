#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/gguf/blocks.hpp"
#include "residua/io/gguf/file.hpp"
#include "residua/io/gguf/writer.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

template <class G>
QuantizedLayer<G> block_of(std::vector<Code> codes, float scale, float zero) {
    auto layer = QuantizedLayer<G>::of_shape(1, 32, 32);
    layer.codes = std::move(codes);
    layer.scales = {scale};
    layer.zeros = {zero};
    return layer;
}

template <class Block>
std::vector<int> bytes(const Block& block) {
    std::vector<int> values;
    for (const std::byte b : std::as_bytes(std::span(&block, 1))) values.push_back(static_cast<int>(b));
    return values;
}

std::vector<int> joined(std::vector<int> a, const std::vector<int>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

/// Codes 0 ... 15 and 15 ... 0: byte j is (15 - j) << 4 | j.
std::vector<Code> up_and_down() {
    std::vector<Code> codes;
    for (int j = 0; j < 16; ++j) codes.push_back(static_cast<Code>(j));
    for (int j = 0; j < 16; ++j) codes.push_back(static_cast<Code>(15 - j));
    return codes;
}

const std::vector<int> up_and_down_bytes = {0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87,
                                            0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f};

template <class G>
void check_round_trip() {
    const auto layer = random_quantized(G{}, 7, 96, 32);
    const auto blocks = io::pack_ggml(layer);
    CHECK(same_layer(io::unpack_ggml<G>(blocks, 7), layer));
}

std::string small_gguf(const TemporaryFolder& folder) {
    const auto layer = random_quantized(Q4_0Grid{}, 2, 64, 32);
    const auto blocks = io::pack_ggml(layer);
    const std::vector<float> norm = {1, 2, 3};
    io::write_gguf(folder / "f.gguf",
                   {{"general.architecture", std::string("llama")},
                    {"n", std::uint32_t(7)},
                    {"x", 0.5f},
                    {"flag", true}},
                   {io::gguf_tensor<Q4_0Grid>("w", blocks, 2), io::gguf_tensor("norm", {3}, norm)});
    return read_file(folder / "f.gguf");
}

}  // namespace

TEST_CASE("ggml blocks by hand", "[gguf]") {
    CHECK(bytes(io::pack_ggml(block_of<Q4_0Grid>(up_and_down(), 0.5f, -1))[0]) ==
          joined({0x00, 0xb8}, up_and_down_bytes));  // d = -0.5
    CHECK(bytes(io::pack_ggml(block_of<Q4_1Grid>(up_and_down(), 2.0f, -1.5f))[0]) ==
          joined({0x00, 0x40, 0x00, 0xbe}, up_and_down_bytes));
    CHECK(bytes(io::pack_ggml(block_of<MXFP4Grid>(up_and_down(), 0.25f, 0))[0]) ==
          joined({125}, up_and_down_bytes));

    auto codes = up_and_down();
    codes[0] = 16 + 0;   // bit 0 of qh
    codes[9] = 16 + 9;   // bit 9
    codes[31] = 16 + 0;  // bit 31
    CHECK(bytes(io::pack_ggml(block_of<Q5_0Grid>(codes, 1.0f, 1))[0]) ==
          joined({0x00, 0x3c, 0x01, 0x02, 0x00, 0x80}, up_and_down_bytes));
    CHECK(bytes(io::pack_ggml(block_of<Q5_1Grid>(codes, 1.0f, 0))[0]) ==
          joined({0x00, 0x3c, 0x00, 0x00, 0x01, 0x02, 0x00, 0x80}, up_and_down_bytes));

    std::vector<Code> wide(32, 127);  // 0
    wide[0] = 0;
    wide[1] = 254;
    std::vector<int> expected(34, 0);
    expected[1] = 0x3c;
    expected[2] = 0x81;  // -127
    expected[3] = 0x7f;
    CHECK(bytes(io::pack_ggml(block_of<Q8_0Grid>(wide, 1.0f, 0))[0]) == expected);
}

TEST_CASE("ggml round trips", "[gguf]") {
    check_round_trip<Q4_0Grid>();
    check_round_trip<Q4_1Grid>();
    check_round_trip<Q5_0Grid>();
    check_round_trip<Q5_1Grid>();
    check_round_trip<Q8_0Grid>();
    check_round_trip<MXFP4Grid>();
}

TEST_CASE("ggml blocks refuse what they cannot hold", "[gguf]") {
    const auto refusal = [](const auto& layer) { return refusal_of([&] { (void)io::pack_ggml(layer); }); };
    CHECK(contains(refusal(random_quantized(Q4_0Grid{}, 2, 64, 64)),
                   "Q4_0: the group size is 64, expected 32"));
    CHECK(contains(refusal(random_quantized(Q8_0Grid{}, 2, 40, 32)),
                   "the columns are 40, expected a multiple of the group size, 32"));
    auto layer = random_quantized(Q4_1Grid{}, 2, 64, 32);
    layer.zeros[0] = 0.1f;
    CHECK(contains(refusal(layer), "Q4_1: a minimum is 0.1, expected a number that float16 holds exactly"));
    CHECK(contains(refusal_of([] { (void)io::unpack_ggml<Q4_0Grid>({}, 1); }), "unpack_ggml: rows is 1"));
}

TEST_CASE("GGUF files", "[gguf]") {
    const TemporaryFolder folder;
    const std::string file = small_gguf(folder);
    CHECK(file.substr(0, 8) == std::string("GGUF\3\0\0\0", 8));
    const io::GGUFFile read(folder / "f.gguf");
    REQUIRE(read.tensors().size() == 2);
    CHECK(read.tensors()[0].shape == std::vector<Index>{2, 64});
    CHECK(read.tensors()[1].bytes.size() == 12);
    CHECK(same_layer(read.layer<Q4_0Grid>("w"), random_quantized(Q4_0Grid{}, 2, 64, 32)));
    CHECK(contains(format_error_of([&] { (void)read.layer<Q4_1Grid>("w"); }),
                   "tensor 'w' has type Q4_0 and rank 2, expected a matrix of Q4_1"));
    CHECK(contains(format_error_of([&] { (void)read.tensor("v"); }), "there is no tensor 'v'"));

    const std::vector<float> one = {1};
    CHECK(contains(refusal_of([&] {
                       io::write_gguf(folder / "g", {},
                                      {io::gguf_tensor("a", {1}, one), io::gguf_tensor("a", {1}, one)});
                   }),
                   "twice"));
    CHECK(contains(refusal_of([&] {
                       io::write_gguf(folder / "g", {}, {io::gguf_tensor(std::string(64, 'a'), {1}, one)});
                   }),
                   "of a tensor has 64 bytes, expected 1 to 63"));
    CHECK(contains(refusal_of([&] { io::write_gguf(folder / "g", {}, {io::gguf_tensor("a", {3}, one)}); }),
                   "tensor 'a' has 4 bytes of data, expected 12 for its shape and type F32"));
    CHECK(contains(refusal_of([&] { io::write_gguf(folder / "g", {}, {io::gguf_tensor("a", {0}, one)}); }),
                   "tensor 'a' has the extent 0"));
    CHECK(!std::filesystem::exists(folder / "g"));
    CHECK(name_of(io::GGMLType::MXFP4) == "MXFP4");
    CHECK(name_of(static_cast<io::GGMLType>(9)) == "9");
}

TEST_CASE("damaged GGUF files", "[gguf]") {
    const TemporaryFolder folder;
    const std::string file = small_gguf(folder);
    const auto error = [&](const std::string& bytes) {
        const auto path = folder.write("d.gguf", bytes);
        return format_error_of([&] { const io::GGUFFile read(path); });
    };
    REQUIRE(error(file).empty());
    // the last tensor is followed by padding, which readers do without
    const std::size_t needed = file.size() - (32 - 12);
    for (std::size_t length = 0; length < needed; ++length) {
        CAPTURE(length);
        REQUIRE(!error(file.substr(0, length)).empty());
    }
    // every byte of the header, changed: an error or another valid file, never a crash
    for (std::size_t at = 0; at < file.size() - 192; ++at) {
        for (const int flip : {1, 0x80, 0xff}) {
            std::string changed = file;
            changed[at] = static_cast<char>(changed[at] ^ flip);
            (void)error(changed);
        }
    }
    SUCCEED();
}
