// The blocks of a refinement on a GPU fit into the shared memory of every card; no GPU is needed to see that.

#include "residua/backends/cuda/refine_memory.hpp"
#include "catch.hpp"

using namespace residua;
using namespace residua::detail::cuda;

TEST_CASE("Refined blocks follow the card's shared memory", "[refine_memory]") {
    // what a thread block may have at compute capability 8.6, 8.9 and 12.0; 8.0; 9.0 and 10.0
    constexpr std::size_t small = std::size_t(99) << 10;
    constexpr std::size_t medium = std::size_t(163) << 10;
    constexpr std::size_t large = std::size_t(227) << 10;
    CHECK(refine_columns_within<float>(small) == 96);
    CHECK(refine_columns_within<float>(medium) == 128);
    CHECK(refine_columns_within<float>(large) == 128);
    CHECK(refine_columns_within<double>(small) == 64);
    CHECK(refine_columns_within<double>(medium) == 96);
    CHECK(refine_columns_within<double>(large) == 128);
    CHECK(refine_columns_within<float>(1 << 10) == 0);
}

TEST_CASE("A refined block's parts are disjoint and add up", "[refine_memory]") {
    for (const int width : {1, 31, 64, 96, 127, 128}) {
        const RefineMemory<float> memory{width};
        CHECK(memory.length() >= width);
        CHECK(memory.length() % 4 == 0);
        const auto elements = std::size_t(width * memory.length() + 32 + 2 * 32 * width + 128);
        CHECK(memory.bytes() ==
              elements * sizeof(float) + std::size_t(32 * width));  // and a byte for each code
    }
}
