/// Packing of codes into 32-bit words, beside a copy of the same codes: bytes of codes per second.

#include <benchmark/benchmark.h>

#include <cstring>
#include <residua/io/packing/bit_packing.hpp>
#include <vector>

namespace {

using namespace residua;

constexpr Index out_features = 14336;
constexpr Index in_features = 4096;

struct Data {
    explicit Data(int bits)
        : codes(static_cast<std::size_t>(out_features * in_features)),
          words(static_cast<std::size_t>(io::packed_words(in_features, bits) * out_features)) {
        for (std::size_t i = 0; i < codes.size(); ++i)
            codes[i] = static_cast<Code>((i * 2654435761u >> 13) & ((1u << bits) - 1));
    }
    std::vector<Code> codes;
    std::vector<std::uint32_t> words;
};

void count(benchmark::State& state) {
    state.SetBytesProcessed(state.iterations() * out_features * in_features);
}

void copy(benchmark::State& state) {
    Data data(8);
    std::vector<Code> target(data.codes.size());
    for (auto _ : state) {
        std::memcpy(target.data(), data.codes.data(), target.size());
        benchmark::ClobberMemory();
    }
    count(state);
}
BENCHMARK(copy);

void pack_gptq_words(benchmark::State& state) {
    const int bits = static_cast<int>(state.range(0));
    Data data(bits);
    for (auto _ : state) {
        io::pack_rows_transposed({data.codes.data(), out_features, in_features}, bits,
                                 {data.words.data(), io::packed_words(in_features, bits), out_features});
        benchmark::ClobberMemory();
    }
    count(state);
}
BENCHMARK(pack_gptq_words)->Arg(2)->Arg(3)->Arg(4)->Arg(8)->ArgName("bits");

void unpack_gptq_words(benchmark::State& state) {
    const int bits = static_cast<int>(state.range(0));
    Data data(bits);
    io::pack_rows_transposed({data.codes.data(), out_features, in_features}, bits,
                             {data.words.data(), io::packed_words(in_features, bits), out_features});
    for (auto _ : state) {
        io::unpack_rows_transposed({data.words.data(), io::packed_words(in_features, bits), out_features},
                                   bits, {data.codes.data(), out_features, in_features});
        benchmark::ClobberMemory();
    }
    count(state);
}
BENCHMARK(unpack_gptq_words)->Arg(2)->Arg(3)->Arg(4)->Arg(8)->ArgName("bits");

void pack_rows(benchmark::State& state) {
    const int bits = static_cast<int>(state.range(0));
    Data data(bits);
    for (auto _ : state) {
        io::pack_rows({data.codes.data(), out_features, in_features}, bits,
                      {data.words.data(), out_features, io::packed_words(in_features, bits)});
        benchmark::ClobberMemory();
    }
    count(state);
}
BENCHMARK(pack_rows)->Arg(2)->Arg(3)->Arg(4)->Arg(8)->ArgName("bits");

void unpack_rows(benchmark::State& state) {
    const int bits = static_cast<int>(state.range(0));
    Data data(bits);
    const MatrixView<std::uint32_t> words(data.words.data(), out_features,
                                          io::packed_words(in_features, bits));
    io::pack_rows({data.codes.data(), out_features, in_features}, bits, words);
    for (auto _ : state) {
        io::unpack_rows(words, bits, {data.codes.data(), out_features, in_features});
        benchmark::ClobberMemory();
    }
    count(state);
}
BENCHMARK(unpack_rows)->Arg(2)->Arg(3)->Arg(4)->Arg(8)->ArgName("bits");

}  // namespace

BENCHMARK_MAIN();
