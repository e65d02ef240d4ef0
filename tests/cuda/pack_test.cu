#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "catch.hpp"
#include "residua/backends/cuda/pack.hpp"
#include "residua/grids/codebook_grid.hpp"
#include "residua/grids/float_grid.hpp"
#include "residua/grids/ggml_grid.hpp"
#include "residua/grids/mxfp4_grid.hpp"
#include "residua/grids/nvfp4_grid.hpp"
#include "residua/io/packing/bit_packing.hpp"
#include "support/random.hpp"

using namespace residua;
using residua::test::Random;

namespace {

template <class T>
class Managed {
  public:
    explicit Managed(std::size_t size) : size_(size) {
        detail::cuda::check(cudaMallocManaged(&data_, size * sizeof(T)), "cudaMallocManaged");
    }
    Managed(const Managed&) = delete;
    Managed& operator=(const Managed&) = delete;
    ~Managed() { cudaFree(data_); }
    T* data() const { return data_; }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    std::size_t size_;
};

/// Parameters, codes and values of x, on whatever side it is called.
template <class G>
struct Trace {
    float scale, zero, value;
    int code;

    RESIDUA_HOST_DEVICE static Trace of(const G& grid, float low, float high, float x) {
        const GridParams<float> p = grid.params(low, high);
        const int code = grid.encode(x, p);
        return {p.scale, p.zero, grid.decode(code, p), code};
    }
};

template <class G>
__global__ void trace_kernel(G grid, const float* x, Trace<G>* traces, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        traces[i] = Trace<G>::of(grid, -std::abs(x[i]), std::abs(x[(i + 1) % count]), x[(i + 2) % count]);
}

template <class G>
void check_grid(const char* name, const G& grid) {
    constexpr int count = 10000;
    Random random(5);
    Managed<float> x(count);
    Managed<Trace<G>> traces(count);
    for (int i = 0; i < count; ++i) x[std::size_t(i)] = static_cast<float>(random.normal());
    x[7] = 0;
    trace_kernel<<<(count + 255) / 256, 256>>>(grid, x.data(), traces.data(), count);
    detail::cuda::check_launch("trace_kernel");
    detail::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    int different = 0;
    for (int i = 0; i < count; ++i) {
        const auto at = [&](int k) { return x[std::size_t((i + k) % count)]; };
        const auto expected = Trace<G>::of(grid, -std::abs(at(0)), std::abs(at(1)), at(2));
        const auto& found = traces[std::size_t(i)];
        different += expected.scale != found.scale || expected.zero != found.zero ||
                     expected.code != found.code || expected.value != found.value;
    }
    CAPTURE(name);
    CHECK(different == 0);
}

}  // namespace

TEST_CASE("packing on the device is packing on the host", "[cuda]") {
    for (const int bits : {2, 3, 4, 8}) {
        for (const auto& [m, n, gap] : {std::tuple<Index, Index, Index>{1, 1, 0},
                                        {33, 257, 0},
                                        {32, 256, 0},
                                        {100, 1000, 3},
                                        {64, 512, 8},
                                        {257, 96, 1}}) {
            CAPTURE(bits, m, n, gap);
            Random random(static_cast<std::uint64_t>(bits));
            Managed<Code> codes(static_cast<std::size_t>(m * (n + gap)));
            for (std::size_t i = 0; i < codes.size(); ++i)
                codes[i] = static_cast<Code>(random.bits() >> (64 - bits));
            const Index rows = packed_words(n, bits);
            Managed<std::uint32_t> words(static_cast<std::size_t>(rows * m));
            std::vector<std::uint32_t> expected(words.size());
            const MatrixView<const Code> view(codes.data(), m, n, n + gap);
            io::pack_rows_transposed(view, bits, {expected.data(), rows, m});
            cuda_pack_rows_transposed(nullptr, view, bits, {words.data(), rows, m});
            detail::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
            CHECK(std::equal(expected.begin(), expected.end(), words.data()));
        }
    }
}

TEST_CASE("packing on the device refuses what does not fit", "[cuda]") {
    CHECK_THROWS_AS(cuda_pack_rows_transposed(nullptr, {nullptr, 4, 32}, 4, {nullptr, 4, 5}),
                    std::invalid_argument);
    CHECK_THROWS_AS(cuda_pack_rows_transposed(nullptr, {nullptr, 4, 32}, 5, {nullptr, 5, 4}),
                    std::invalid_argument);
}

TEST_CASE("grids on the device are grids on the host", "[cuda]") {
    check_grid("fp4", FP4Grid{.scale_type = ScaleType::Float16});
    check_grid("fp8", FP8Grid{});
    check_grid("mxfp4", MXFP4Grid{});
    check_grid("mxfp4, covering", MXFP4Grid{.clip = {.enabled = true}});
    check_grid("nvfp4", NVFP4Grid{.tensor_scale = 0x1p-8f});
    check_grid("nf4", NF4Grid{});
    check_grid("q4_0", Q4_0Grid{});
    check_grid("q4_1", Q4_1Grid{});
    check_grid("q5_0", Q5_0Grid{});
    check_grid("q5_1", Q5_1Grid{});
    check_grid("q8_0", Q8_0Grid{});
    CodebookGrid<40> codebook{};
    for (int i = 0; i < 40; ++i) codebook.values[i] = 0.1f * static_cast<float>(i - 17);
    check_grid("codebook", codebook);
}
