#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "residua/backends/eigen.hpp"
#include "residua/io.hpp"

namespace user {

// What a program may well have at its head: no name of io may become ambiguous by it.
using namespace std;
using namespace residua;
using namespace residua::io;

}  // namespace user

namespace user {

template <class G>
QuantizedLayer<G> small_layer(G grid, Index cols) {
    return QuantizedLayer<G>::of_shape(2, cols, cols, grid);
}

TEST_CASE("names of io stand beside those of the standard library", "[names]") {
    CHECK(name_of(DType::F16) == "F16");
    CHECK(size_of(DType::F16) == 2);
    CHECK(dtype_named("F16") == dtype_of<float16>());
    CHECK(name_of(GGMLType::Q4_0) == "Q4_0");
    CHECK(packed_words(9, 4) == 2);

    const auto integers = small_layer(IntegerGrid{.scale_type = ScaleType::Float16}, 32);
    const GPTQLayer gptq = pack_gptq(integers, GPTQVersion::V2);
    CHECK(unpack_gptq(gptq).codes == integers.codes);
    CHECK(GPTQConfig::of(integers, GPTQVersion::V2).group_size == -1);
    const PackQuantizedLayer rows = pack_quantized(integers);
    CHECK(unpack_quantized(rows).codes == integers.codes);
    const NF4Layer nf4 = pack_nf4(small_layer(NF4Grid{}, 32));
    CHECK(unpack_nf4(nf4).rows == 2);
    const FP4Layer nvfp4 = pack_nvfp4(small_layer(NVFP4Grid{}, 16));
    CHECK(unpack_nvfp4(nvfp4).rows == 2);
    const FP4Layer mxfp4 = pack_mxfp4(small_layer(MXFP4Grid{}, 32));
    CHECK(unpack_mxfp4(mxfp4).rows == 2);
    const auto blocks = pack_ggml(small_layer(Q8_0Grid{}, 32));
    CHECK(unpack_ggml<Q8_0Grid>(blocks, 2).rows == 2);
    const GGUFTensor tensor = gguf_tensor<Q8_0Grid>("w", blocks, 2);
    CHECK(tensor.type == GGMLFormat<Q8_0Grid>::type);
    CHECK(quantization_metadata(mxfp4.config()).size() == 2);

    // In namespaces of their own, files are what is tested elsewhere: here it is that the calls compile.
    const filesystem::path absent = filesystem::temp_directory_path() / "residua-absent" / "file";
    EigenBackend backend;
    const Moments<float, EigenBackend> moments(backend, 2);
    CHECK_THROWS_AS(write_moments(absent, moments), FileError);
    CHECK_THROWS_AS(read_moments(backend, absent), FileError);
    CHECK_THROWS_AS(write_safetensors(absent, gptq.tensors("a")), FileError);
    CHECK_THROWS_AS(write_gguf(absent, {{"key", 1.0f}}, {tensor}), FileError);
    CHECK_THROWS_AS(write_json(absent, mxfp4.config()), FileError);
    CHECK_THROWS_AS(read_json(absent), FileError);
    CHECK_THROWS_AS(SafetensorsFile(absent), FileError);
    CHECK_THROWS_AS(SafetensorsCheckpoint(absent), FileError);
    CHECK_THROWS_AS(GGUFFile(absent), FileError);
    CHECK_THROWS_AS(MappedFile(absent), FileError);
    CHECK_THROWS_AS(AtomicFile(absent), FileError);
}

}  // namespace user
