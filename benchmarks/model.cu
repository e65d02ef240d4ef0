/// A whole model of Llama-3-8B's shapes with random weights, quantized as llama_quantize does it, but for files: seconds
/// of each stage, and the device memory that it took at most.
///
///     model [--blocks 32] [--windows 128] [--tokens 2048] [--bits 4]
///
/// Stages are timed with the device idle before and after each; "all" is the wall time of a run of its own, without
/// these pauses.

#pragma nv_diag_suppress 20012

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "../examples/llama_quantize/checkpoint_format.hpp"
#include "../examples/llama_quantize/cuda/cuda_engine.hpp"
#include "../examples/llama_quantize/quantize_model.hpp"

namespace {

using residua::bfloat16;
using residua::Index;
using residua::detail::cuda::check;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Values of a normal distribution by their number, times `scale`.
__global__ void draw_kernel(std::uint64_t seed, Index count, float scale, bfloat16* values) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += Index(gridDim.x) * blockDim.x) {
        std::uint64_t z = seed + std::uint64_t(i) * 0x9e3779b97f4a7c15u;  // splitmix64
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        const float radius = sqrtf(-2 * logf((float(std::uint32_t(z)) + 1) * 0x1p-32f));
        values[i] = bfloat16(scale * radius * cospif(2 * float(std::uint32_t(z >> 32)) * 0x1p-32f));
    }
}

/// Tensors that are drawn where they are needed; norms are ones, nothing has a bias.
class RandomTensors : public llama::cuda::TensorSource {
  public:
    explicit RandomTensors(const llama::Config& config) : config_(config) {}

    bool contains(const std::string& name) const override { return !name.ends_with(".bias"); }
    residua::io::DType dtype(const std::string&) const override { return residua::io::DType::BF16; }
    void fetch(const std::string& name, Index elements, void* to, cudaStream_t stream) const override {
        auto* values = static_cast<bfloat16*>(to);
        if (name.ends_with("norm.weight")) {
            const std::vector<bfloat16> ones(std::size_t(elements), bfloat16(1.0f));
            return copy_from_host(to, ones.data(), ones.size() * sizeof(bfloat16), stream);
        }
        const bool reads_wide = name.ends_with("down_proj.weight");
        const Index inputs = reads_wide ? config_.intermediate : config_.hidden;
        const float scale = name.starts_with("model.embed") ? 1.0f : 1 / std::sqrt(float(inputs));
        draw_kernel<<<1024, 256, 0, stream>>>(std::hash<std::string>()(name), elements, scale, values);
        residua::detail::cuda::check_launch("draw_kernel");
    }

  private:
    llama::Config config_;
};

/// Packs blocks as files hold them, and forgets them.
class Packing : public Output {
  public:
    double seconds = 0;

    void start() override {}
    bool has_block(Index) const override { return false; }
    void write_block(Index, const QuantizedBlock& layers, const nlohmann::json&) override {
        const auto start = Clock::now();
        for (const auto& layer : packed(layers, CheckpointFormat(residua::io::GPTQConfig{})))
            for (const StoredTensor& tensor : layer) bytes_ += tensor.bytes.size();
        seconds += seconds_since(start);
    }
    QuantizedBlock read_block(Index, nlohmann::json&) const override { return {}; }
    void finish(const llama::Model&, bool) override {}

    std::size_t bytes() const { return bytes_; }

  private:
    std::size_t bytes_ = 0;
};

/// Another calibration whose stages are timed, each with the device idle before and after it.
class TimedCalibration : public Calibration {
  public:
    explicit TimedCalibration(Calibration& inner) : inner_(inner) {}

    std::map<std::string, double> seconds;

    const llama::Config& config() const override { return inner_.config(); }
    void enter(Index block) override {
        timed("forward", [&] { inner_.enter(block); });
    }
    Index accumulate(const Readers& readers, const Kinds& kinds) override {
        Index tokens = 0;
        timed("accumulate", [&] { tokens = inner_.accumulate(readers, kinds); });
        return tokens;
    }
    residua::Report solve(const std::string& method, std::size_t layer) override {
        residua::Report report;
        timed("solve", [&] { report = inner_.solve(method, layer); });
        seconds["refine"] += report.seconds.refine;
        seconds["solve"] -= report.seconds.refine;
        seconds["objective"] += report.seconds.objective;
        seconds["solve"] -= report.seconds.objective;
        return report;
    }
    void put(std::size_t layer, StoredLayer quantized) override { inner_.put(layer, std::move(quantized)); }
    std::array<double, 2> output_errors(std::size_t layer) override {
        std::array<double, 2> errors{};
        timed("output errors", [&] { errors = inner_.output_errors(layer); });
        return errors;
    }
    void advance(llama::Input input) override {
        timed("forward", [&] { inner_.advance(input); });
    }
    std::shared_future<std::shared_ptr<const QuantizedBlock>> leave() override { return inner_.leave(); }
    residua::NormGains<float> fit_final_norm() override { return inner_.fit_final_norm(); }

  private:
    template <class Work>
    void timed(const char* stage, Work work) {
        check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        const auto start = Clock::now();
        work();
        check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        seconds[stage] += seconds_since(start);
    }

    Calibration& inner_;
};

/// Device memory in use, of this process and whatever else is there, in bytes.
double used_memory() {
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return double(total - free);
}

llama::Config llama_3_8b(Index blocks) {
    llama::Config c;
    c.hidden = 4096;
    c.intermediate = 14336;
    c.blocks = blocks;
    c.heads = 32;
    c.key_value_heads = 8;
    c.head_size = 128;
    c.vocabulary = 128256;
    c.rotary.base = 500000;
    return c;
}

struct Task {
    Index blocks = 32, windows = 128, tokens = 2048;
    int bits = 4;
};

void run(const char* title, const ModelMethod& method, int rounds, const Task& task, bool by_stage) {
    Ranks alone;
    SolveSettings settings;
    settings.grid.bits = task.bits;
    settings.grid.scale_type = residua::ScaleType::Float16;  // as files hold them
    settings.options.refinement.rounds = rounds;
    settings.resolve_group_size();
    auto shell = std::make_shared<llama::Model>();
    shell->config = llama_3_8b(task.blocks);
    shell->norm = llama::Vector::Ones(shell->config.hidden);
    llama::Windows windows(static_cast<std::size_t>(task.windows));
    std::uint64_t state = 1;
    for (auto& window : windows) {
        for (Index t = 0; t < task.tokens; ++t) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            window.push_back(llama::Token((state >> 33) % std::uint64_t(shell->config.vocabulary)));
        }
    }

    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    const auto engine =
        make_cuda_engine(shell, std::make_unique<RandomTensors>(shell->config), settings, alone, {});
    const auto start = Clock::now();
    const auto calibration = engine->calibrate(windows, method.references(task.windows), {});
    TimedCalibration timed(*calibration);
    Packing packing;
    const auto records = ModelQuantizer(method, alone, {})
                             .run(by_stage ? static_cast<Calibration&>(timed) : *calibration, &packing);
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    const double all = seconds_since(start);
    double error = 0;
    for (const LayerRecord& record : records) error = std::max(error, record.output_error);
    std::printf("%-22s %8.2f s", title, all);
    for (const auto& [stage, seconds] : timed.seconds) std::printf("  %s %.2f", stage.c_str(), seconds);
    std::printf("  pack %.2f  %.1f GB  largest output error %.3f  %zu bytes\n", packing.seconds,
                1e-9 * used_memory(), error, packing.bytes());
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    Task task;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        const Index value = std::atoll(argv[i + 1]);
        if (name == "--blocks") task.blocks = value;
        if (name == "--windows") task.windows = value;
        if (name == "--tokens") task.tokens = value;
        if (name == "--bits") task.bits = int(value);
    }
    cudaDeviceProp device = {};
    check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    std::printf("%s: %td blocks of Llama-3-8B's, %td x %td tokens, %d bits\n", device.name, task.blocks,
                task.windows, task.tokens, task.bits);
    const ModelMethod gptq{.name = "gptq"}, qep{.name = "qep", .residual_stream = true};
    run("GPTQ", gptq, 0, task, false);
    run("GPTQ, by stage", gptq, 0, task, true);
    run("QEP, 2 rounds", qep, 2, task, false);
    run("QEP, 2 rounds, by stage", qep, 2, task, true);
}
