#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "residua/backends/eigen.hpp"
#include "residua/io/formats/moments.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

TEST_CASE("files of moments that cannot be are refused", "[moments]") {
    const TemporaryFolder folder;
    EigenBackend backend;
    const std::vector<float> gram = {2, 1, 1, 3};
    const std::vector<std::int64_t> tokens = {5};
    const auto good = [&] {
        return std::vector{io::tensor_of("gram", {2, 2}, gram), io::tensor_of("cross", {2, 2}, gram),
                           io::tensor_of("tokens", {}, tokens)};
    };
    const auto refusal = [&](std::vector<io::TensorInfo> tensors) {
        io::write_safetensors(folder / "m", std::move(tensors));
        return format_error_of([&] { (void)io::read_moments<float>(backend, folder / "m"); });
    };
    CHECK(refusal(good()).empty());

    for (const std::string missing : {"gram", "tokens"}) {
        auto tensors = good();
        std::erase_if(tensors, [&](const io::TensorInfo& tensor) { return tensor.name == missing; });
        CHECK(contains(refusal(tensors), "there is no tensor '" + missing + "'"));
    }

    auto tensors = good();
    const std::vector<float> six(6, 1.0f);
    tensors[0] = io::tensor_of("gram", {2, 3}, six);
    CHECK(contains(refusal(tensors), "'gram' has shape [2, 3], expected [2, 2]"));
    tensors[0] = io::tensor_of("gram", {4}, gram);
    CHECK(contains(refusal(tensors), "'gram' has shape [4], expected a matrix with elements"));
    tensors[0] = io::tensor_of("gram", {0, 0}, std::vector<float>());
    CHECK(contains(refusal(tensors), "'gram' has shape [0, 0], expected a matrix with elements"));
    tensors = good();
    tensors[1] = io::tensor_of("cross", {3, 2}, six);
    CHECK(contains(refusal(tensors), "'cross' has shape [3, 2], expected [2, 2]"));
    tensors = good();
    tensors.push_back(io::tensor_of("stream_cross", {2, 3}, six));
    CHECK(contains(refusal(tensors), "'stream_cross' has shape [2, 3], expected [2, 2]"));
    tensors.back() = io::tensor_of("stream_cross", {3, 2}, six);
    CHECK(refusal(tensors).empty());
    tensors = good();
    const std::vector<std::int64_t> two = {5, 5};
    tensors[2] = io::tensor_of("tokens", {2}, two);
    CHECK(contains(refusal(tensors), "'tokens' has shape [2], expected []"));

    tensors = good();
    const std::vector<double> doubles = {2, 1, 1, 3};
    tensors[0] = io::tensor_of("gram", {2, 2}, doubles);
    CHECK(contains(refusal(tensors), "'gram' has dtype F64, expected F32"));
    tensors = good();
    tensors[1] = io::tensor_of("cross", {2, 2}, doubles);
    CHECK(contains(refusal(tensors), "'cross' has dtype F64, expected F32"));
    tensors = good();
    const std::vector<std::int32_t> narrow = {5};
    tensors[2] = io::tensor_of("tokens", {}, narrow);
    CHECK(contains(refusal(tensors), "'tokens' has dtype I32, expected I64"));

    tensors = good();
    const std::vector<std::int64_t> negative = {-1};
    tensors[2] = io::tensor_of("tokens", {}, negative);
    CHECK(contains(refusal(tensors), "'tokens' holds -1, expected 0 to 2^53"));
    tensors = good();
    const std::vector<float> skewed = {2, 1, 0.5f, 3};
    tensors[0] = io::tensor_of("gram", {2, 2}, skewed);
    CHECK(
        contains(refusal(tensors), "'gram' has 0.5 at (1, 0) and 1 at (0, 1), expected a symmetric matrix"));
    CHECK_THROWS_AS(io::read_moments<float>(backend, folder / "absent"), io::FileError);
}

TEST_CASE("every pair of elements of a large gram is compared", "[moments]") {
    const TemporaryFolder folder;
    EigenBackend backend;
    const Index n = 200;
    const std::vector<std::int64_t> tokens = {1};
    for (const auto& [i, j] : {std::pair<Index, Index>{199, 0}, {64, 63}, {65, 64}, {199, 198}, {130, 70}}) {
        std::vector<float> gram(static_cast<std::size_t>(n * n), 1.0f);
        gram[static_cast<std::size_t>(i * n + j)] = 2;
        io::write_safetensors(folder / "m",
                              {io::tensor_of("gram", {n, n}, gram), io::tensor_of("tokens", {}, tokens)});
        CHECK(contains(format_error_of([&] { (void)io::read_moments(backend, folder / "m"); }),
                       "'gram' has 2 at (" + std::to_string(i) + ", " + std::to_string(j) + ") and 1 at"));
    }
}
