#include <cerrno>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "safetensors_bytes.hpp"

#if RESIDUA_HAS_MMAP
#include <sys/stat.h>
#endif

using namespace residua;
using namespace residua::test;

namespace {

const std::filesystem::path official = std::filesystem::path(RESIDUA_TEST_DATA_DIR) / "official.safetensors";
const std::filesystem::path example_layer =
    std::filesystem::path(RESIDUA_EXAMPLE_DATA_DIR) / "layer.safetensors";

// The errno of the FileError that opening ends in; 0 where it ends well.
int error_of_opening(const std::filesystem::path& path) {
    try {
        const io::SafetensorsFile file(path);
    } catch (const io::FileError& error) {
        CHECK(contains(error.what(), path.string()));
        return error.code().value();
    }
    return 0;
}

}  // namespace

TEST_CASE("the published codes' results are read", "[safetensors]") {
    const io::SafetensorsFile file(official);
    CHECK(file.source() == official.string());
    CHECK(file.names().size() == 20);
    CHECK(file.metadata().at("format") == "pt");
    const auto weight = file.matrix_view<float16>("weight");
    const auto x = file.matrix_view<float16>("x");
    const auto q = file.matrix_view<float>("q.gptq.w4.g128.sym");
    CHECK(x.cols == weight.cols);
    CHECK(q.rows == weight.rows);
    CHECK(q.cols == weight.cols);
    const auto values = file.read<double>("weight");
    CHECK(values.size() == static_cast<std::size_t>(weight.rows * weight.cols));
    bool is_equal = true;
    for (Index i = 0; i < weight.rows; ++i)
        for (Index j = 0; j < weight.cols; ++j)
            is_equal &=
                values[static_cast<std::size_t>(i * weight.cols + j)] == static_cast<double>(weight(i, j));
    CHECK(is_equal);
}

TEST_CASE("the example layer is read", "[safetensors]") {
    const io::SafetensorsFile file(example_layer);
    CHECK(file.names() == std::vector<std::string>{"weight", "x", "x_fp"});
    CHECK(file.metadata().at("name") == "model.layers.3.mlp.up_proj");
    const auto x = file.matrix_view<bfloat16>("x");
    CHECK(x.rows == 3072);
    CHECK(x.cols == 256);
    CHECK(x.stride == 256);
    CHECK(file.visit_matrix("weight", [](auto weight) { return weight.rows; }) == 768);
    CHECK(file.read<float>("x_fp").size() == 3072 * 256);
}

TEST_CASE("views survive a move of their file", "[safetensors]") {
    static_assert(!std::is_copy_constructible_v<io::SafetensorsFile>);
    io::SafetensorsFile file(example_layer);
    const auto x = file.matrix_view<bfloat16>("x");
    io::SafetensorsFile moved = std::move(file);
    CHECK(moved.matrix_view<bfloat16>("x").data == x.data);
    file = io::SafetensorsFile(official);
    CHECK(file.contains("q.gptq.w4.g128.sym"));
    std::swap(file, moved);
    CHECK(file.matrix_view<bfloat16>("x").data == x.data);
    CHECK(static_cast<float>(x(0, 0)) == file.read<float>("x")[0]);
}

TEST_CASE("what cannot be opened says why", "[safetensors]") {
    const TemporaryFolder folder;
    CHECK(error_of_opening(folder / "absent.safetensors") == ENOENT);
    CHECK(error_of_opening(folder.path()) == EISDIR);
#if RESIDUA_HAS_MMAP
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK(error_of_opening(folder / "pipe") == EINVAL);  // and does not wait for a writer
    CHECK(error_of_opening("/dev/null") == EINVAL);
#endif
    const auto empty = folder.write("empty.safetensors", "");
    CHECK(format_error_of([&] { (void)io::SafetensorsFile(empty); }) ==
          "residua: '" + empty.string() + "': the file has 0 bytes, expected at least 8");
    try {
        (void)io::SafetensorsFile(folder / "absent");
    } catch (const io::FileError& error) {
        CHECK(error.what() ==
              "residua: cannot open '" + (folder / "absent").string() + "': No such file or directory");
    }
}
