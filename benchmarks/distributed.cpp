/// What several ranks gain. One process for each GPU, on NCCL alone (bench_distributed_cuda, or
/// benchmarks/distributed.sh, which starts them):
///
///     distributed reduce RANK RANKS FILE          all-reduce of H and D, in ms and GB/s
///     distributed model RANK RANKS FILE [BLOCKS]  Llama-3-8B-shaped blocks: accumulate and solve
///     distributed killed RANK RANKS FILE          the last rank is killed: what the others do
///
/// FILE is where the ranks meet: it must not exist before. On CPUs and MPI the same with smaller matrices:
///
///     mpirun -np 2 bench_distributed reduce|model|killed [BLOCKS]

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#ifdef __CUDACC__
#include <residua/cuda.hpp>
#else
#include <residua/residua.hpp>
#endif
#include <residua/distributed.hpp>

#include "random.hpp"

namespace {

using namespace residua;
using Clock = std::chrono::steady_clock;

#ifdef __CUDACC__
using Device = CudaBackend;
using Ranks = NCCLCommunicator;
using Input = bfloat16;
constexpr Index hidden = 4096, key_value = 1024, intermediate = 14336;
constexpr Index window = 2048, windows = 128, default_blocks = 32;
void finish(Device& device) { device.synchronize(); }
#else
using Device = EigenBackend;
using Ranks = MPICommunicator;
using Input = float;
constexpr Index hidden = 512, key_value = 128, intermediate = 1792;
constexpr Index window = 256, windows = 32, default_blocks = 4;
void finish(Device&) {}
#endif
using Shards = ShardedMoments<float, Device>;
using Quantizer = DistributedQuantizer<float, Device, Ranks>;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// All ranks have come here, and their GPUs have done all that they were given.
void meet(Device& device, Ranks& ranks) {
    finish(device);
    double one[1] = {1};
    ranks.sum(std::span<double>(one), every_rank);
}

/// Median of the seconds that `work` takes on all ranks together.
double median_seconds(Device& device, Ranks& ranks, const std::function<void()>& work) {
    std::vector<double> seconds;
    for (int i = 0; i < 12; ++i) {
        meet(device, ranks);
        const auto start = Clock::now();
        work();
        finish(device);
        seconds.push_back(seconds_since(start));
    }
    seconds.erase(seconds.begin(), seconds.begin() + 2);  // channels are set up in the first ones
    std::nth_element(seconds.begin(), seconds.begin() + 5, seconds.end());
    return seconds[5];
}

/// Random values where the backend computes.
Device::Matrix<Input> random_on(Device& device, Index rows, Index cols, float carry, std::uint64_t seed) {
    auto matrix = device.allocate<Input>(rows, cols);
    device.write(bench::random_matrix<Input>(rows, cols, carry, seed), matrix.view());
    return matrix;
}

void reduce(Device& device, Ranks& ranks) {
    const bool speaks = ranks.rank() == 0;
    const auto row = [&](const char* what, Index n, double elements, double traffic, double seconds) {
        const double bytes = 4 * elements;
        if (speaks)
            std::printf("%-34s n = %-6td %8.1f MB %9.3f ms %8.1f GB/s, %8.1f GB/s on the bus\n", what, n,
                        bytes / 1e6, 1e3 * seconds, bytes / seconds / 1e9, traffic * bytes / seconds / 1e9);
    };
    const double p = ranks.size();
    for (const Index n : {hidden, intermediate}) {
        auto matrix = device.allocate<float>(n, n);
        device.set_zero(matrix.view());
        const auto half = static_cast<std::size_t>(n * (n + 1) / 2);
        const std::span<float> h(matrix.view().data, half);
        const std::span<float> d(matrix.view().data, static_cast<std::size_t>(n * n));
        const auto timed = [&](const std::function<void()>& work) {
            return median_seconds(device, ranks, work);
        };
        const double ring = 2 * (p - 1) / p;
        row("all-reduce of H, a triangle", n, double(half), ring, timed([&] { ranks.sum(h, every_rank); }));
        row("all-reduce of D", n, double(n * n), ring, timed([&] { ranks.sum(d, every_rank); }));
        row("reduce of D", n, double(n * n), (p - 1) / p, timed([&] { ranks.sum(d, 0); }));
        row("broadcast of D", n, double(n * n), 1, timed([&] { ranks.broadcast(d, 0); }));
        matrix = {};

        Moments<float, Device> moments(device, n);
        const auto x = random_on(device, 256, n, 0.8f, 1), x_fp = random_on(device, 256, n, 0.8f, 2);
        moments.accumulate(x.view(), x_fp.view());
        const double all = double(half) + double(n * n);
        row("all_reduce(moments), fast", n, all, ring, timed([&] { all_reduce(moments, ranks); }));
        row("all_reduce(moments), ordered", n, all, ring,
            timed([&] { all_reduce(moments, ranks, Reduction::Ordered); }));
    }
}

/// FNV-1a of eight bytes at a time.
std::uint64_t hash_of(std::uint64_t hash, const void* data, std::size_t bytes) {
    const char* p = static_cast<const char*>(data);
    for (; bytes >= 8; bytes -= 8, p += 8) {
        std::uint64_t word;
        std::memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    return hash;
}

/// Blocks of Llama-3-8B's shapes, 128 windows of 2048 tokens; on CPUs an eighth of its widths, and fewer tokens.
class Model {
  public:
    Model(Device& device, Ranks& ranks) : device_(device), ranks_(ranks) {
        for (const Index n : {hidden, intermediate}) {
            for (std::uint64_t i = 0; i < batches; ++i) {
                inputs_[n == intermediate].push_back(random_on(device, window, n, 0.8f, 10 + i));
                // deviations of about a tenth would need a kernel; another draw costs the same operations
                references_[n == intermediate].push_back(random_on(device, window, n, 0.8f, 20 + i));
            }
        }
        const std::vector<std::pair<Index, std::vector<Index>>> shapes = {
            {hidden, {hidden, key_value, key_value}},
            {hidden, {hidden}},
            {hidden, {intermediate, intermediate}},
            {intermediate, {hidden}}};
        std::uint64_t seed = 100;
        for (const auto& [n, rows] : shapes) {
            auto& group = weights_.emplace_back();
            for (const Index m : rows) group.push_back(random_on(device, m, n, 0, ++seed));
        }
    }

    template <Method M>
    void run(Index blocks, Reduction reduction) {
        const Index hashed_blocks = std::min<Index>(blocks, 4);
        double accumulating = 0, solving = 0;
        std::uint64_t hash = 0xcbf29ce484222325u;
        for (Index block = -1; block < blocks; ++block) {  // the first one loads kernels and sets up channels
            meet(device_, ranks_);
            const auto start = Clock::now();
            std::vector<Shards> sums;
            for (std::size_t g = 0; g < weights_.size(); ++g)
                sums.push_back(accumulated<M>(weights_[g][0].cols(), block + Index(g), reduction));
            meet(device_, ranks_);
            const auto accumulated = Clock::now();
            Quantizer quantizer(device_, ranks_, {.reduction = reduction});
            std::vector<Quantizer::Group<Input>> groups;
            for (std::size_t g = 0; g < weights_.size(); ++g) {
                auto& group = groups.emplace_back(Quantizer::Group<Input>{&sums[g], {}});
                for (const auto& w : weights_[g]) group.weights.push_back(w.view());
            }
            const IntegerGrid grid{.bits = 4};
            const auto solve = [&](const Moments<float, Device>& moments, MatrixView<const Input> rows,
                                   Index first) {
                return Solver<M, float, Device>(moments, {}, {}).quantize_rows(rows, first, grid);
            };
            const auto solution = quantizer.solve_rows(groups, grid, {}, M::residuals, solve);
            meet(device_, ranks_);
            if (block >= 0) {
                accumulating += std::chrono::duration<double>(accumulated - start).count();
                solving += seconds_since(accumulated);
            }
            if (block < 0 || block >= hashed_blocks) continue;
            for (const auto& group : quantizer.gather(solution)) {
                for (const auto& [layer, report] : group) {
                    require(report.status == Status::Success, "a solve ended with", to_string(report.status),
                            "success");
                    hash = hash_of(hash, layer.codes.data(), layer.codes.size());
                    hash = hash_of(hash, layer.scales.data(), 4 * layer.scales.size());
                    hash = hash_of(hash, layer.zeros.data(), 4 * layer.zeros.size());
                }
            }
        }
        if (ranks_.rank() == 0)
            std::printf(
                "%-6s %-8s %d rank(s), %td blocks: accumulate %7.3f s + solve %7.3f s = %7.3f s, "
                "codes of %td blocks %016llx\n",
                M::name, reduction == Reduction::Ordered ? "ordered" : "fast", ranks_.size(), blocks,
                accumulating, solving, accumulating + solving, hashed_blocks,
                static_cast<unsigned long long>(hash));
        std::fflush(stdout);
    }

  private:
    static constexpr std::size_t batches = 4;
    static constexpr Index ordered_segments = 8;

    template <Method M>
    Shards accumulated(Index n, Index shift, Reduction reduction) {
        const Index segments = reduction == Reduction::Ordered ? ordered_segments : ranks_.size();
        const Share mine = share_of(segments, ranks_.rank(), ranks_.size());
        Shards sums(device_, n, {segments, mine});
        for (Index s = mine.first; s < mine.end(); ++s) {
            const Share part = share_of(windows, s, segments);
            for (Index w = part.first; w < part.end(); ++w) {
                const auto i = std::size_t(w + shift + 1) % batches;
                const auto x = inputs_[n == intermediate][i].view();
                if constexpr (M::residuals == Residuals::None) {
                    sums.accumulate(s, x);
                } else {
                    sums.accumulate(s, x, references_[n == intermediate][i].view());
                }
            }
        }
        return sums;
    }

    Device& device_;
    Ranks& ranks_;
    std::vector<Device::Matrix<Input>> inputs_[2],
        references_[2];  // of `hidden` and of `intermediate` features
    std::vector<std::vector<Device::Matrix<Input>>> weights_;
};

void killed(Device& device, Ranks& ranks) {
    auto matrix = device.allocate<float>(hidden, hidden);
    device.set_zero(matrix.view());
    ranks.set_timeout(std::chrono::seconds(10));
    for (int i = 0;; ++i) {
        if (i == 20 && ranks.rank() == ranks.size() - 1) std::raise(SIGKILL);
        ranks.sum(std::span<float>(matrix.view().data, static_cast<std::size_t>(hidden * hidden)),
                  every_rank);
    }
}

void work(const std::string& what, Device& device, Ranks& ranks, Index blocks) {
    try {
        if (what == "reduce") return reduce(device, ranks);
        if (what == "killed") return killed(device, ranks);
        require(what == "model", "distributed: the work is", what, "reduce, model or killed");
        Model model(device, ranks);
        for (const Reduction reduction : {Reduction::Fast, Reduction::Ordered}) {
            model.run<GPTQ>(blocks, reduction);
            model.run<QEP>(blocks, reduction);
        }
    } catch (const std::exception& error) {
        ranks.abort(error.what());
    }
}

}  // namespace

int main(int argc, char** argv) {
#ifdef __CUDACC__
    if (argc < 5) return std::fprintf(stderr, "usage: distributed WORK RANK RANKS FILE [BLOCKS]\n"), 2;
    try {
        const int rank = std::stoi(argv[2]), size = std::stoi(argv[3]);
        detail::cuda::check(cudaSetDevice(rank), "cudaSetDevice");
        const auto rendezvous = NCCLRendezvous::by_file(argv[4], rank, std::chrono::seconds(60));
        Device device;
        Ranks ranks(device, rendezvous, {.rank = rank, .size = size}, std::chrono::minutes(2));
        work(argv[1], device, ranks, argc > 5 ? std::stol(argv[5]) : default_blocks);
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
#else
    if (argc < 2) return std::fprintf(stderr, "usage: mpirun bench_distributed WORK [BLOCKS]\n"), 2;
    const MPIEnvironment environment(argc, argv);
    Ranks ranks;
    Device device(Executor(1));
    work(argv[1], device, ranks, argc > 2 ? std::stol(argv[2]) : default_blocks);
#endif
    return 0;
}
