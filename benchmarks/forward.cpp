/// The forward pass of the examples on one thread of the CPU, as each window goes through a block of random weights,
/// beside the products of its linear layers alone, in turns. `of_gemm` is the share of the forward pass's time that its
/// operations, those of the linear layers and of causal attention, take at the rate of these products. Times are the CPU's,
/// which other programs disturb less than the clock's.

#include <benchmark/benchmark.h>

#include <ctime>
#include <random>

#include "../examples/llama/runner.hpp"

namespace {

using namespace llama;

/// hidden_size, intermediate_size, heads, key_value_heads, head_dim
struct Shape {
    const char* name;
    Index hidden, intermediate, heads, key_value_heads, head_size;
};
constexpr Shape shapes[] = {{"SmolLM2-135M", 576, 1536, 9, 3, 64}, {"Llama-3.2-1B", 2048, 8192, 32, 8, 64}};

Config config_of(const Shape& shape) {
    Config c;
    c.hidden = shape.hidden;
    c.intermediate = shape.intermediate;
    c.heads = shape.heads;
    c.key_value_heads = shape.key_value_heads;
    c.head_size = shape.head_size;
    return c;
}

Rows random_rows(Index rows, Index cols, float scale) {
    static std::mt19937 random(1);
    std::normal_distribution<float> normal(0, scale);
    Rows m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = normal(random);
    return m;
}

Block random_block(const Config& c) {
    Block block;
    for (const NormSpec& norm : norms_of(c)) block.*norm.norm = Vector::Ones(norm.size);
    for (const LayerSpec& spec : layers_of(c, 0))
        block.layers.push_back({spec, {random_rows(spec.out, spec.in, 1 / std::sqrt(float(spec.in)))}});
    return block;
}

double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

void forward(benchmark::State& state, const Shape& shape) {
    Eigen::setNbThreads(1);
    const Index tokens = state.range(0);
    const Config c = config_of(shape);
    const Block block = random_block(c);
    const Runner runner(c, tokens);
    const Rows residual = random_rows(tokens, c.hidden, 1), inner = random_rows(tokens, c.intermediate, 1);
    const Rows context = random_rows(tokens, c.query_size(), 1);

    Rows product = Rows::Zero(tokens, std::max(c.intermediate, c.hidden));

    double linear = 0;  // operations of a window
    for (const BlockLayer& layer : block.layers)
        linear += 2 * double(tokens) * double(layer.spec.out) * double(layer.spec.in);
    const double attention = 2 * double(tokens) * double(tokens + 1) * double(c.query_size());

    double forward_seconds = 0, product_seconds = 0;
    for (auto _ : state) {
        const double start = cpu_seconds();
        for (const BlockLayer& layer : block.layers) {
            const Rows& x = layer.spec.input == Input::Down     ? inner
                            : layer.spec.input == Input::Output ? context
                                                                : residual;
            auto y = product.leftCols(layer.spec.out);
            y.noalias() = x * layer.linear.weight.transpose();
            benchmark::DoNotOptimize(product.data());
        }
        Activations a{.residual = residual};
        const double middle = cpu_seconds();
        runner.run(block, a);
        const double end = cpu_seconds();
        product_seconds += middle - start;
        forward_seconds += end - middle;
        state.SetIterationTime(end - middle);
    }
    const double rate = (linear + attention) / forward_seconds;
    state.counters["GFLOP/s"] = 1e-9 * double(state.iterations()) * rate;
    state.counters["of_gemm"] = rate / (linear / product_seconds);
}

const int registered = [] {
    for (const Shape& shape : shapes)
        benchmark::RegisterBenchmark(shape.name, [&shape](benchmark::State& state) { forward(state, shape); })
            ->ArgName("tokens")
            ->Arg(512)
            ->Arg(2048)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    return 0;
}();

}  // namespace

BENCHMARK_MAIN();
