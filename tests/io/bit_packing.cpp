#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "packed_layers.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

std::vector<Code> random_codes(Index count, int bits, std::uint64_t seed = 3) {
    Random random(seed);
    std::vector<Code> codes;
    for (Index i = 0; i < count; ++i) codes.push_back(static_cast<Code>(random.bits() >> (64 - bits)));
    return codes;
}

/// Bit by bit, as the format says.
std::vector<std::uint32_t> naive(const std::vector<Code>& codes, int bits) {
    std::vector<std::uint32_t> words(static_cast<std::size_t>(io::packed_words(std::ssize(codes), bits)), 0);
    for (std::size_t i = 0; i < codes.size(); ++i) {
        for (int b = 0; b < bits; ++b) {
            const std::size_t at = i * static_cast<std::size_t>(bits) + static_cast<std::size_t>(b);
            words[at / 32] |= static_cast<std::uint32_t>(codes[i] >> b & 1) << (at % 32);
        }
    }
    return words;
}

std::vector<std::uint32_t> packed(std::vector<Code> codes, int bits) {
    std::vector<std::uint32_t> words(static_cast<std::size_t>(io::packed_words(std::ssize(codes), bits)), 99);
    io::pack_rows(MatrixView<const Code>(codes.data(), 1, std::ssize(codes)), bits,
                  MatrixView<std::uint32_t>(words.data(), 1, std::ssize(words)));
    return words;
}

std::vector<Code> counting(int count, int levels) {
    std::vector<Code> codes;
    for (int i = 0; i < count; ++i) codes.push_back(static_cast<Code>(i % levels));
    return codes;
}

}  // namespace

TEST_CASE("words by hand", "[packing]") {
    // 3 2 1 0 3 2 1 0 ...: 11 10 01 00 is e4
    CHECK(packed(counting(16, 4), 2) == std::vector<std::uint32_t>{0xe4e4e4e4});
    CHECK(packed(counting(8, 16), 4) == std::vector<std::uint32_t>{0x76543210});
    CHECK(packed({15, 0, 0, 0, 0, 0, 0, 1}, 4) == std::vector<std::uint32_t>{0x1000000f});
    CHECK(packed({1, 2, 3, 255}, 8) == std::vector<std::uint32_t>{0xff030201});
    // 111 110 101 100 011 010 001 000 is fac688, three times for each 72 bits of the stream
    CHECK(packed(counting(32, 8), 3) == std::vector<std::uint32_t>{0x88fac688, 0xc688fac6, 0xfac688fa});
    // the eleventh value straddles the first two words: bit 30, 31 and 0 of the next
    std::vector<Code> eleventh(32, 0);
    eleventh[10] = 0b101;
    CHECK(packed(eleventh, 3) == std::vector<std::uint32_t>{0x40000000, 1, 0});
    std::vector<Code> twenty_second(32, 0);
    twenty_second[21] = 0b110;
    CHECK(packed(twenty_second, 3) == std::vector<std::uint32_t>{0, 0, 0b11});
    // ragged: unused bits are zero
    CHECK(packed({7, 7, 7}, 3) == std::vector<std::uint32_t>{0x1ff});
    CHECK(packed({3}, 2) == std::vector<std::uint32_t>{3});
}

TEST_CASE("packing agrees with its definition", "[packing]") {
    for (int bits = 1; bits <= 8; ++bits) {
        for (const Index count : {1, 7, 8, 9, 31, 32, 33, 63, 255, 256, 257, 300, 1000}) {
            CAPTURE(bits, count);
            const auto codes = random_codes(count, bits);
            REQUIRE(packed(codes, bits) == naive(codes, bits));
        }
    }
}

TEST_CASE("transposed and strided packing, and back", "[packing]") {
    for (int bits = 1; bits <= 8; ++bits) {
        for (const auto& [m, n] :
             {std::pair<Index, Index>{1, 1}, {3, 40}, {16, 256}, {33, 257}, {80, 520}, {20, 2100}}) {
            // words at every offset from a cache line, with rows that keep and that break its alignment
            for (const Index offset : {0, 1, 5}) {
                for (const Index stride : {m, (m + 15) / 16 * 16, m + 3}) {
                    CAPTURE(bits, m, n, offset, stride);
                    const auto codes = random_codes(m * (n + 2), bits);
                    const MatrixView<const Code> view(codes.data(), m, n, n + 2);
                    const Index rows = io::packed_words(n, bits);
                    std::vector<std::uint32_t> storage(static_cast<std::size_t>(rows * stride + 32),
                                                       0xabababab);
                    const MatrixView<std::uint32_t> words(storage.data() + offset, rows, m, stride);
                    io::pack_rows_transposed(view, bits, words);
                    std::vector<std::uint32_t> row_words(static_cast<std::size_t>(m * rows));
                    io::pack_rows(view, bits, {row_words.data(), m, rows});
                    std::size_t wrong = 0;
                    for (Index r = 0; r < m; ++r) {
                        for (Index k = 0; k < rows; ++k)
                            wrong += row_words[static_cast<std::size_t>(r * rows + k)] != words(k, r);
                    }
                    REQUIRE(wrong == 0);
                    if (stride > m) REQUIRE(storage[static_cast<std::size_t>(offset + m)] == 0xabababab);

                    std::vector<Code> back(static_cast<std::size_t>(m * n));
                    std::vector<Code> back_rows(back.size());
                    io::unpack_rows_transposed(words, bits, {back.data(), m, n});
                    io::unpack_rows({row_words.data(), m, rows}, bits, {back_rows.data(), m, n});
                    for (Index r = 0; r < m; ++r) {
                        for (Index j = 0; j < n; ++j)
                            wrong += back[static_cast<std::size_t>(r * n + j)] != view(r, j);
                    }
                    REQUIRE(wrong == 0);
                    REQUIRE(back == back_rows);
                }
            }
        }
    }
}

TEST_CASE("packing refuses what is no matrix, and one matrix in the memory of the other", "[packing]") {
    std::vector<std::uint32_t> words(4 * 8);
    std::vector<Code> codes(4 * 64);
    const MatrixView<std::uint32_t> good_words(words.data(), 4, 8), few(words.data(), 8, 4);
    const MatrixView<Code> good_codes(codes.data(), 4, 64);
    const auto odd = reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(words.data()) + 1);
    const auto inside = reinterpret_cast<Code*>(words.data() + 8);
    for (const bool transposed : {false, true}) {
        const auto messages = [&](MatrixView<Code> c, MatrixView<std::uint32_t> w) {
            const auto pack = [&] {
                transposed ? io::pack_rows_transposed(c, 4, w) : io::pack_rows(c, 4, w);
            };
            const auto unpack = [&] {
                transposed ? io::unpack_rows_transposed(w, 4, c) : io::unpack_rows(w, 4, c);
            };
            return refusal_of(pack) + refusal_of(unpack);
        };
        const auto expect = [&](const std::string& words_of_both, MatrixView<Code> c,
                                MatrixView<std::uint32_t> w) {
            const std::string text = messages(c, w);
            CAPTURE(text);
            CHECK(
                contains(text, (transposed ? "unpack_rows_transposed: " : "unpack_rows: ") + words_of_both));
            CHECK(
                contains(text, (transposed ? ": pack_rows_transposed: " : ": pack_rows: ") + words_of_both));
        };
        const auto shaped = [&](std::uint32_t* data, Index stride) {
            return transposed ? MatrixView(data, 8, 4, stride) : MatrixView(data, 4, 8, stride);
        };
        expect("codes.data is null", {nullptr, 4, 64}, good_words);
        expect("codes.rows is -4", {codes.data(), -4, 64}, good_words);
        expect("codes.stride is 63", {codes.data(), 4, 64, 63}, good_words);
        expect("words.data is null", good_codes, shaped(nullptr, 8));
        expect("words.data is not aligned", good_codes, shaped(odd, 8));
        expect("words.stride is 1", good_codes, shaped(words.data(), 1));
        expect("words has shape", good_codes, {words.data(), 4, 7});
        expect("words is in the memory of codes", {inside, 4, 64, 64}, transposed ? few : good_words);
    }
}

TEST_CASE("packing refuses what does not fit", "[packing]") {
    std::vector<Code> codes = {1, 2, 4, 3};
    std::vector<std::uint32_t> words(4);
    const MatrixView<const Code> view(codes.data(), 1, 4);
    CHECK(contains(refusal_of([&] {
                       io::pack_rows(view, 2, {words.data(), 1, 1});
                   }),
                   "codes has at (0, 2) the code 4, expected at most 3"));
    CHECK(contains(refusal_of([&] {
                       io::pack_rows_transposed(view, 2, {words.data(), 1, 1});
                   }),
                   "codes has at (0, 2) the code 4, expected at most 3"));
    CHECK(contains(refusal_of([&] {
                       io::pack_rows(view, 4, {words.data(), 1, 2});
                   }),
                   "pack_rows: words has shape 1 x 2, expected 1 x 1"));
    CHECK(contains(refusal_of([&] {
                       io::pack_rows_transposed(view, 4, {words.data(), 1, 2});
                   }),
                   "shape 1 x 2, expected 1 x 1"));
    CHECK(contains(refusal_of([&] { io::pack_rows(view, 9, {words.data(), 1, 2}); }), "bits is 9"));
}
