// Prints a checksum of what each stage of a quantization gives, and its codes: cmake/reliability.sh repeat compares them
// between runs, numbers of threads and builds for other instruction sets.
//
//     bits THREADS FILE     the codes go to FILE, a byte each

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <residua/io.hpp>
#include <residua/residua.hpp>
#include <string>

#include "support/content_hash.hpp"

using namespace residua;

namespace {

/// The same on every machine: xorshift, and no function of the C library.
class Numbers {
  public:
    /// In [-1, 1), with a tail like that of weights.
    float next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        const float u = static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 0x1p-31f;
        return u * u * u;
    }
    std::vector<float> list(Index count) {
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) value = next();
        return values;
    }

  private:
    std::uint64_t state_ = 88172645463325252u;
};

template <class T>
void print(const char* stage, const std::vector<T>& values) {
    ContentHash hash;
    hash.add(std::as_bytes(std::span(values)));
    std::printf("%-24s %s\n", stage, hash.text().c_str());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    EigenBackend cpu{Executor(std::atoi(argv[1]))};
    constexpr Index m = 300, n = 640, tokens = 900;
    Numbers numbers;
    const std::vector<float> w = numbers.list(m * n), x = numbers.list(tokens * n);
    std::vector<float> x_fp = numbers.list(tokens * n), rotated = x;
    for (std::size_t i = 0; i < x.size(); ++i) x_fp[i] = x[i] + 0x1p-4f * x_fp[i];
    const MatrixView weights(w.data(), m, n);
    std::vector<Code> all;
    const auto keep = [&](const char* stage, const auto& layer) {
        print(stage, layer.codes);
        print("  its scales", layer.scales);
        all.insert(all.end(), layer.codes.begin(), layer.codes.end());
    };

    const IntegerGrid plain{.bits = 3};
    const IntegerGrid searched{
        .bits = 3, .clip = {.enabled = true, .search = ScaleSearch::Loss}, .scale_type = ScaleType::Float16};
    keep("rounding to nearest", round_weights<float>(cpu, weights, plain).to_host(cpu));
    HadamardTransform(n).apply(MatrixView(rotated.data(), tokens, n), Executor(std::atoi(argv[1])));
    print("Hadamard transform", rotated);

    Moments<float, EigenBackend> moments(cpu, n);
    moments.accumulate(MatrixView(x.data(), tokens, n), MatrixView(x_fp.data(), tokens, n));
    print("H", cpu.read(moments.gram()));
    print("D", cpu.read(moments.cross()));
    SolverOptions options;
    options.refinement.rounds = 1;
    keep("GPTQ", GPTQSolver(moments).quantize(weights, plain).to_host(cpu));
    const auto best = QEPSolver(moments, options).quantize(weights, searched).to_host(cpu);
    keep("QEP, search, refinement", best);
    print("  its GPTQ words", io::pack_gptq(best).qweight);
    std::ofstream(argv[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(all.data()), std::ssize(all));
    return 0;
}
