// Streams, handles, memory and failures.

#include <thread>

#include "catch.hpp"
#include "cuda/backends.hpp"
#include "support/layer.hpp"

namespace {

using namespace residua;
using namespace residua::test;

/// A fixed amount of memory, filled with NaN before use.
class PoisonAllocator : public DeviceAllocator {
  public:
    explicit PoisonAllocator(std::size_t bytes) : left_(bytes) {}

    void* allocate(std::size_t bytes, cudaStream_t stream) override {
        void* memory = nullptr;
        if (bytes > left_ || cudaMallocAsync(&memory, bytes, stream) != cudaSuccess) return nullptr;
        cudaMemsetAsync(memory, 0xff, bytes, stream);
        left_ -= bytes;
        return memory;
    }
    void deallocate(void* memory, std::size_t bytes, cudaStream_t stream) noexcept override {
        cudaFreeAsync(memory, stream);
        left_ += bytes;
    }

    std::size_t left_;
};

template <class Method>
std::vector<Code> codes(CudaBackend& gpu, const Layer& layer, const SolverOptions& options = {}) {
    const std::vector<float> x(layer.x.data.begin(), layer.x.data.end());
    const std::vector<float> x_fp(layer.x_fp.data.begin(), layer.x_fp.data.end());
    const std::vector<float> w(layer.w.data.begin(), layer.w.data.end());
    Solver<Method, float, CudaBackend> solver(gpu, layer.n, options);
    solver.accumulate(MatrixView<const float>(x.data(), layer.tokens, layer.n),
                      MatrixView<const float>(x_fp.data(), layer.tokens, layer.n));
    const auto result = solver.quantize(MatrixView<const float>(w.data(), layer.m, layer.n), IntegerGrid{});
    REQUIRE(result);
    return gpu.read(result.codes.view());
}

/// Groups that fill a part of a block, that are wider than one, and that activation order scatters.
std::vector<SolverOptions> refinements() {
    std::vector<SolverOptions> all(3);
    all[0].group_size = 48;
    all[1].group_size = SolverOptions::per_channel;
    all[2].ordering = Ordering::Activation;
    all[2].static_groups = true;
    for (SolverOptions& options : all) options.refinement.rounds = 1;
    return all;
}

}  // namespace

TEMPLATE_TEST_CASE("Every element that is read was written", "[cuda][sanitize]", GPTQ, GPTAQ, QEP) {
    const Layer layer = random_layer({.out = 70, .in = 300, .tokens = 700});
    PoisonAllocator poison(std::size_t(1) << 30);
    CudaBackend gpu(CudaOptions{.allocator = &poison});
    CHECK(codes<TestType>(gpu, layer) == codes<TestType>(CudaFloat::get(), layer));
}

TEST_CASE("Every element that a refinement reads was written", "[cuda][sanitize]") {
    const Layer layer = random_layer({.out = 70, .in = 300, .tokens = 700});
    PoisonAllocator poison(std::size_t(1) << 30);
    CudaBackend gpu(CudaOptions{.allocator = &poison});
    for (const SolverOptions& options : refinements()) {
        CAPTURE(options.group_size, options.static_groups);
        CHECK(codes<GPTQ>(gpu, layer, options) == codes<GPTQ>(CudaFloat::get(), layer, options));
    }
}

TEST_CASE("Host and device inputs of every kind of memory are the same", "[cuda]") {
    const Layer layer = random_layer({.out = 40, .in = 130, .tokens = 300});
    const Solved near = solve<GPTAQ, CudaFloat>(layer);
    CudaBackend small_batches(CudaOptions{.slab_bytes = 1, .batch_bytes = 1});
    const std::vector<Code> far = codes<GPTAQ>(small_batches, layer);
    std::size_t different = 0;
    for (std::size_t i = 0; i < far.size(); ++i) different += far[i] != near.codes[i];
    CHECK(different <= far.size() / 500);
}

TEST_CASE("Two solvers on two streams run side by side", "[cuda]") {
    const Layer layer = random_layer({.out = 200, .in = 300, .tokens = 700});
    const auto expected = codes<GPTAQ>(CudaFloat::get(), layer);
    std::vector<Code> results[2];
    std::thread threads[2];
    for (int i = 0; i < 2; ++i) {
        threads[i] = std::thread([&, i] {
            CudaBackend gpu;
            for (int repeat = 0; repeat < 3; ++repeat) results[i] = codes<GPTAQ>(gpu, layer);
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(results[0] == expected);
    CHECK(results[1] == expected);
}

TEST_CASE("The engine's own stream and handles serve", "[cuda]") {
    const Layer layer = random_layer({.out = 50, .in = 100, .tokens = 300});
    const auto stream = residua::detail::cuda::create_stream();
    const auto blas = residua::detail::cuda::create_blas(stream.get());
    const auto solver = residua::detail::cuda::create_solver(stream.get());
    CudaBackend gpu(CudaOptions{.stream = stream.get(), .blas = blas.get(), .solver = solver.get()});
    cublasSetPointerMode(blas.get(), CUBLAS_POINTER_MODE_DEVICE);
    CHECK(codes<GPTAQ>(gpu, layer) == codes<GPTAQ>(CudaFloat::get(), layer));
    cublasPointerMode_t mode = CUBLAS_POINTER_MODE_HOST;
    cublasGetPointerMode(blas.get(), &mode);
    CHECK(mode == CUBLAS_POINTER_MODE_DEVICE);

    const std::string message = message_of([&] { CudaBackend(CudaOptions{.blas = blas.get()}); });
    CHECK(message == "residua: CudaOptions: blas uses another stream, expected options.stream");
}

TEST_CASE("Out of memory says how much was asked for, and leaves the moments intact", "[cuda]") {
    const Layer layer = random_layer({.out = 50, .in = 256, .tokens = 600});
    PoisonAllocator little(std::size_t(64) << 20);
    CudaBackend gpu(CudaOptions{.allocator = &little});
    const std::vector<float> x(layer.x.data.begin(), layer.x.data.end());
    const std::vector<float> w(layer.w.data.begin(), layer.w.data.end());
    Moments<float, CudaBackend> moments(gpu, layer.n);
    moments.accumulate(MatrixView<const float>(x.data(), layer.tokens, layer.n));
    const auto before = gpu.read(moments.gram());
    const std::size_t left = little.left_;
    little.left_ = 100000;
    const GPTQSolver<float, CudaBackend> solver(moments);
    const auto quantize = [&] {
        return solver.quantize(MatrixView<const float>(w.data(), layer.m, layer.n), IntegerGrid{});
    };
    const std::string message = message_of<DeviceMemoryError>([&] { return quantize(); });
    CHECK_THAT(message, Catch::Matchers::ContainsSubstring("out of memory: 1 MiB asked for, "));
    CHECK_THAT(message, Catch::Matchers::ContainsSubstring(" MiB free"));
    little.left_ += left - 100000;
    CHECK(gpu.read(moments.gram()) == before);
    CHECK(quantize());
}

TEMPLATE_TEST_CASE("A solve takes the memory that was announced", "[cuda]", GPTQ, GPTAQ, QEP) {
    std::vector<SolverOptions> all = refinements();
    for (const bool objective : {false, true}) {
        all.emplace_back();
        all.back().report_objective = objective;
    }
    for (const Index out : {300, 900}) {
        const Layer layer = random_layer({.out = out, .in = 600, .tokens = 700});
        for (const SolverOptions& options : all) {
            CudaBackend gpu;
            const std::vector<float> x(layer.x.data.begin(), layer.x.data.end());
            const std::vector<float> x_fp(layer.x_fp.data.begin(), layer.x_fp.data.end());
            const std::vector<float> w(layer.w.data.begin(), layer.w.data.end());
            auto weights = gpu.allocate<float>(layer.m, layer.n);
            gpu.write(w, weights.view());
            Solver<TestType, float, CudaBackend> solver(gpu, layer.n, options);
            solver.accumulate(MatrixView<const float>(x.data(), layer.tokens, layer.n),
                              MatrixView<const float>(x_fp.data(), layer.tokens, layer.n));
            gpu.memory().reset_peak();
            const std::size_t before = gpu.memory().used_bytes();
            REQUIRE(solver.quantize(std::as_const(weights).view(), IntegerGrid{}));
            const double taken = double(gpu.memory().peak_bytes() - before);
            const double announced =
                double(workspace_bytes<TestType, float>(gpu, layer.m, layer.n, options, {.reference = true}));
            CAPTURE(out, options.report_objective, options.refinement.rounds, options.group_size,
                    options.static_groups, taken / announced);
            CHECK(taken <= 1.05 * announced);
            CHECK(taken >= 0.95 * announced);
        }
    }
}

TEST_CASE("A failed call is named with its code", "[cuda]") {
    const std::string message = message_of<DeviceError>(
        [] { residua::detail::cuda::check(cudaErrorInvalidValue, "cudaMemcpy2DAsync"); });
    CHECK(message == "residua: cudaMemcpy2DAsync: invalid argument (code 1)");
    const auto blas = message_of<DeviceError>(
        [] { residua::detail::cuda::check(CUBLAS_STATUS_NOT_INITIALIZED, "cublasGemmEx"); });
    CHECK(blas == "residua: cublasGemmEx: the library was not initialized (code 1)");
}
