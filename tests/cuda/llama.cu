/// The examples' forward pass on the device: its attention against a naive one in double precision, whole models
/// against the forward pass in host memory.

#include "cuda/backends.hpp"
//
#include <llama/cuda/perplexity.hpp>
#include <llama/rotation.hpp>

#include "catch.hpp"
#include "examples/random_llama.hpp"
#include "support/random.hpp"

using namespace llama;
using namespace llama::cuda;

namespace {

using residua::test::CudaFloat;

constexpr double bf16_unit = 0x1.0p-8;  // of a value below 1, at most: two neighbours' distance

/// ||a - b|| / ||b||
template <class A, class B>
double relative_error(const A& a, const B& b) {
    double difference = 0, size = 0;
    REQUIRE(std::size_t(a.size()) == std::size_t(b.size()));
    for (std::size_t i = 0; i < std::size_t(b.size()); ++i) {
        difference += std::pow(double(a.data()[i]) - double(b.data()[i]), 2);
        size += std::pow(double(b.data()[i]), 2);
    }
    return std::sqrt(difference / size);
}

std::vector<bfloat16> random_values(Index count, std::uint64_t seed) {
    residua::test::Random random(seed);
    std::vector<bfloat16> values;
    for (Index i = 0; i < count; ++i) values.emplace_back(float(random.normal()));
    return values;
}

DeviceMatrix<bfloat16> upload(const std::vector<bfloat16>& values, Index rows, Index cols) {
    auto matrix = CudaFloat::get().allocate<bfloat16>(rows, cols);
    CudaFloat::get().write(values, matrix.view());
    return matrix;
}

struct Heads {
    Index size, queries, keys;
};

/// Row by row, in double precision.
std::vector<double> naive_attention(const Heads& heads, const std::vector<Index>& starts,
                                    const std::vector<bfloat16>& q, const std::vector<bfloat16>& k,
                                    const std::vector<bfloat16>& v) {
    const auto at = [&](const std::vector<bfloat16>& x, Index count, Index t, Index head, Index i) {
        return double(float(x[std::size_t((t * count + head) * heads.size + i)]));
    };
    std::vector<double> context(q.size());
    for (std::size_t w = 0; w + 1 < starts.size(); ++w) {
        for (Index t = starts[w]; t < starts[w + 1]; ++t) {
            for (Index head = 0; head < heads.queries; ++head) {
                const Index source = head * heads.keys / heads.queries;
                std::vector<double> weights;
                double total = 0;
                for (Index s = starts[w]; s <= t; ++s) {
                    double dot = 0;
                    for (Index i = 0; i < heads.size; ++i)
                        dot += at(q, heads.queries, t, head, i) * at(k, heads.keys, s, source, i);
                    weights.push_back(std::exp(dot / std::sqrt(double(heads.size))));
                    total += weights.back();
                }
                for (Index s = starts[w]; s <= t; ++s) {
                    for (Index i = 0; i < heads.size; ++i)
                        context[std::size_t((t * heads.queries + head) * heads.size + i)] +=
                            weights[std::size_t(s - starts[w])] / total * at(v, heads.keys, s, source, i);
                }
            }
        }
    }
    return context;
}

/// A model whose tensors come from host memory, on its way through the device.
class OnDevice {
    static CudaBackend& gpu() { return CudaFloat::get(); }

    template <class Leave>
    auto through(const Windows& windows, const ActivationSettings& settings, Leave leave) {
        const DeviceRunner runner(gpu(), model_.config, longest(windows), settings);
        const DeviceWindows all(gpu(), windows);
        DeviceActivations a = runner.embed(embedding_.view(), all);
        BlockLoader loader(gpu(), model_.config, *source_);
        for (Index i = 0; i < model_.config.blocks; ++i) {
            const DeviceBlock block = loader.take(i);
            BlockWeights weights;
            for (const auto& layer : block.layers) weights.push_back(layer.weight.view());
            runner.run(block, weights, all, a);
        }
        const DeviceTensor norm = fetch_tensor(gpu(), *source_, "model.norm.weight", 1, model_.config.hidden);
        runner.leave(norm.exact(gpu()), a);
        return leave(runner, all, a);
    }

  public:
    explicit OnDevice(const Model& model) : OnDevice(model, std::make_unique<ModelTensors>(model)) {}
    OnDevice(const Model& model, std::unique_ptr<TensorSource> source)
        : model_(model), source_(std::move(source)) {
        const Config& c = model.config;
        embedding_ = fetch_tensor(gpu(), *source_, "model.embed_tokens.weight", c.vocabulary, c.hidden);
        head_ = fetch_tensor(gpu(), *source_, "lm_head.weight", c.vocabulary, c.hidden);
    }

    /// (tokens of all windows, vocabulary)
    std::vector<float> logits(const Windows& windows, const ActivationSettings& settings = {}) {
        return through(windows, settings, [&](const DeviceRunner& runner, const DeviceWindows& all, auto& a) {
            return gpu().read(llama::cuda::logits(gpu(), runner, head_.view(), a, 0, all.tokens()).view());
        });
    }

    double perplexity(const Windows& windows) {
        return through(windows, {}, [&](const DeviceRunner& runner, const DeviceWindows& all, auto& a) {
            return llama::cuda::loss(gpu(), runner, head_.view(), all, a).perplexity();
        });
    }

  private:
    const Model& model_;
    std::unique_ptr<TensorSource> source_;
    DeviceTensor embedding_, head_;
};

std::vector<float> host_logits(const Model& model, const Windows& windows,
                               const ActivationSettings& settings = {}) {
    const Runner runner(model.config, longest(windows), settings);
    std::vector<float> values;
    for (const auto& window : windows) {
        const Rows rows = runner.logits(model, window);
        values.insert(values.end(), rows.data(), rows.data() + rows.size());
    }
    return values;
}

const std::string folder = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";

const Model& shipped_model() {
    static const Model model = read_model(folder);
    return model;
}

Windows sample(Index count, Index tokens) { return read_windows(folder + "/eval.txt", 256, tokens, count); }

}  // namespace

TEST_CASE("llama on the device: attention is the naive one, in windows of any length", "[llama][sanitize]") {
    constexpr double tolerance = bf16_unit;  // weights and results are rounded to bfloat16, half a unit each
    const auto heads =
        GENERATE(Heads{8, 6, 2}, Heads{64, 4, 2}, Heads{80, 2, 2}, Heads{128, 4, 1}, Heads{256, 2, 1});
    const std::vector<Index> lengths{1, 5, 64, 65, 150};
    CAPTURE(heads.size, heads.queries, heads.keys);
    std::vector<Index> starts{0};
    std::vector<std::vector<Token>> windows;
    for (const Index length : lengths) {
        starts.push_back(starts.back() + length);
        windows.emplace_back(std::size_t(length), 0);
    }
    const Index tokens = starts.back();
    const auto q = random_values(tokens * heads.queries * heads.size, 1);
    const auto k = random_values(tokens * heads.keys * heads.size, 2);
    const auto v = random_values(tokens * heads.keys * heads.size, 3);
    CudaBackend& gpu = CudaFloat::get();
    const auto on_device = [&](const auto& x, Index count) { return upload(x, tokens, count * heads.size); };
    const auto q_device = on_device(q, heads.queries);
    const auto k_device = on_device(k, heads.keys);
    const auto v_device = on_device(v, heads.keys);
    auto context =
        on_device(std::vector<bfloat16>(q.size(), bfloat16(NAN)), heads.queries);  // all is written
    const DeviceWindows all(gpu, windows);
    attention(gpu.stream(),
              {.q = q_device.view(),
               .k = k_device.view(),
               .v = v_device.view(),
               .context = context.view(),
               .starts = all.start_data(),
               .size = int(heads.size),
               .heads_per_key = int(heads.queries / heads.keys)},
              all.count(), lengths.back());
    CHECK(relative_error(gpu.read(context.view()), naive_attention(heads, starts, q, k, v)) < tolerance);
}

TEST_CASE("llama on the device: logits are those in host memory", "[llama][sanitize][blas]") {
    // Inputs and weights of linear layers, and what is between them, are rounded to bfloat16 some ten times a block.
    constexpr double tolerance = 10 * bf16_unit;
    SECTION("of a model with biases, norms of heads and scaled rotary embedding, in ragged windows") {
        const Model model = random_model();
        const Windows windows{{1, 2, 3, 4, 5, 6}, {7, 8}, {30, 20, 10, 0, 3, 3, 3, 17, 9}};
        CHECK(relative_error(OnDevice(model).logits(windows), host_logits(model, windows)) < tolerance);
    }
    SECTION("of the shipped model, from its files") {
        const Windows windows = sample(2, 80);
        const Model& model = shipped_model();
        const auto wanted = host_logits(model, windows);
        CHECK(relative_error(OnDevice(model, std::make_unique<FileTensors>(folder)).logits(windows), wanted) <
              tolerance);
        CHECK(relative_error(OnDevice(model).logits(windows), wanted) < tolerance);
    }
    SECTION("of a rotated model with rounded activations and caches") {
        // what lies between two of 255 steps may fall to either side
        constexpr double rounded_tolerance = 2 * tolerance;
        Model model = shipped_model();
        rotate(model, Rotations::hadamard(model.config, 0));
        const residua::ActivationQuantizer eight_bits{.bits = 8};
        const ActivationSettings settings{.inputs = eight_bits, .cache = eight_bits};
        const Windows windows = sample(2, 80);
        CHECK(relative_error(OnDevice(model).logits(windows, settings),
                             host_logits(model, windows, settings)) < rounded_tolerance);
    }
}

TEST_CASE("llama on the device: perplexity is that in host memory", "[llama]") {
    constexpr double tolerance = 2e-3;  // bfloat16 moves losses of single tokens by 1e-2, either way
    const Model& model = shipped_model();
    const Windows windows = sample(8, 200);
    const Runner runner(model.config, longest(windows));
    const double wanted = perplexity(runner, model, windows, residua::Executor());
    CHECK(OnDevice(model).perplexity(windows) == Approx(wanted).epsilon(tolerance));
}

TEST_CASE("llama on the device: a quantized layer is dequantized as in host memory", "[llama][sanitize]") {
    constexpr Index out = 5, in = 24, groups = 3;
    auto layer = residua::QuantizedLayer<residua::IntegerGrid>::of_shape(out, in, in / groups, {.bits = 4});
    residua::test::Random random(4);
    for (auto& code : layer.codes) code = residua::Code(random.bits() % 16);
    for (auto& scale : layer.scales) scale = float(0.1 + random.uniform());
    for (auto& zero : layer.zeros) zero = float(random.bits() % 16);
    CudaBackend& gpu = CudaFloat::get();
    const auto on_device = [&](const auto& values, Index rows) {
        auto matrix = gpu.allocate<std::decay_t<decltype(values[0])>>(rows, Index(values.size()) / rows);
        gpu.write(values, matrix.view());
        return matrix;
    };
    const auto codes = on_device(layer.codes, out);
    const auto scales = on_device(layer.scales, out);
    const auto zeros = on_device(layer.zeros, out);
    const auto group_index = on_device(layer.group_index, 1);
    auto weights = gpu.allocate<bfloat16>(out, in);
    dequantize(gpu.stream(), {codes.view(), scales.view(), zeros.view(), group_index.view().data, layer.grid},
               weights.view());
    const auto found = gpu.read(weights.view());
    const auto wanted = layer.dequantize();
    for (Index i = 0; i < out * in; ++i)
        CHECK(float(found[std::size_t(i)]) == float(bfloat16(wanted.data()[i])));
}
