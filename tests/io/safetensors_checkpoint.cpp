#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// A file that holds tensors of one byte each: the first letter of their names.
std::string shard(const std::vector<std::string>& names, const std::string& metadata = "") {
    std::string header = R"({"__metadata__":{)" + metadata + "}";
    std::string data;
    for (const std::string& name : names) {
        const std::string begin = std::to_string(data.size());
        data += name[0];
        header += ",\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + begin + "," +
                  std::to_string(data.size()) + "]}";
    }
    return safetensors_bytes(header + "}", data);
}

// The FormatError of a directory with shards a.safetensors {a, c} and b.safetensors {b}, and the index given.
std::string error_of_index(const std::string& index) {
    const TemporaryFolder folder;
    folder.write("a.safetensors", shard({"a", "c"}));
    folder.write("b.safetensors", shard({"b"}));
    folder.write("model.safetensors.index.json", index);
    return format_error_of([&] { (void)io::SafetensorsCheckpoint(folder.path()); });
}

std::string weight_map(const std::string& entries) { return R"({"weight_map":{)" + entries + "}}"; }

}  // namespace

TEST_CASE("a checkpoint of one file", "[checkpoint]") {
    const TemporaryFolder folder;
    const auto file = folder.write("model.safetensors", shard({"a", "b"}, R"("k":"v")"));
    for (const auto& path : {file, folder.path()}) {
        const io::SafetensorsCheckpoint checkpoint(path);
        CHECK(checkpoint.source() == file.string());
        CHECK(checkpoint.names() == std::vector<std::string>{"a", "b"});
        CHECK(checkpoint.read<std::uint8_t>("b") == std::vector<std::uint8_t>{'b'});
        CHECK(checkpoint.metadata() == io::Metadata{{"k", "v"}});
        CHECK(checkpoint.shards().size() == 1);
    }
}

TEST_CASE("a checkpoint of several files", "[checkpoint]") {
    const TemporaryFolder folder;
    folder.write("1.safetensors", shard({"a", "c"}, R"("format":"pt","part":"1","only":"1")"));
    folder.write("2.safetensors", shard({"b", "unlisted"}, R"("format":"pt","part":"2")"));
    const auto index =
        folder.write("model.safetensors.index.json",
                     R"({"metadata":{"total_size":3.0,"x":[null,{"weight_map":[true,-1]}]},)"
                     R"("weight_map":{"c":"1.safetensors","b":"2.safetensors","a":"1.safetensors"}})");
    for (const auto& path : {index, folder.path()}) {
        io::SafetensorsCheckpoint opened(path);
        const io::SafetensorsCheckpoint checkpoint = std::move(opened);
        CHECK(checkpoint.names() == std::vector<std::string>{"a", "b", "c"});
        for (const std::string name : {"a", "b", "c"})
            CHECK(checkpoint.read<std::uint8_t>(name)[0] == static_cast<std::uint8_t>(name[0]));
        CHECK(checkpoint.metadata() == io::Metadata{{"format", "pt"}});
        CHECK(checkpoint.shards().size() == 2);
        CHECK(contains(format_error_of([&] { (void)checkpoint.info("d"); }), index.string()));
    }
    // One file that holds everything goes before shards.
    folder.write("model.safetensors", shard({"whole"}));
    CHECK(io::SafetensorsCheckpoint(folder.path()).names() == std::vector<std::string>{"whole"});
}

TEST_CASE("a checkpoint that is not there says what was looked for", "[checkpoint]") {
    const TemporaryFolder folder;
    const auto error_of = [](const std::filesystem::path& path) -> std::string {
        try {
            (void)io::SafetensorsCheckpoint(path);
        } catch (const io::FileError& error) {
            CHECK(error.code().value() == ENOENT);
            return error.what();
        }
        return "";
    };
    CHECK(contains(error_of(folder.path()),
                   "cannot find model.safetensors or model.safetensors.index.json in"));
    CHECK(contains(error_of(folder / "absent"), "absent"));
    folder.write("model.safetensors.index.json", weight_map(R"("a":"gone.safetensors")"));
    CHECK(contains(error_of(folder.path()), "gone.safetensors"));
}

TEST_CASE("a checkpoint whose links lead nowhere says so", "[checkpoint]") {
    const TemporaryFolder folder;
    std::filesystem::create_symlink("model.safetensors", folder / "model.safetensors");
    try {
        (void)io::SafetensorsCheckpoint(folder.path());
        FAIL("a file that is a link to itself was opened");
    } catch (const io::FileError& error) {
        CHECK(error.code().value() == ELOOP);
        CHECK(contains(std::string(error.what()), "model.safetensors"));
    }
}

TEST_CASE("an index cannot lead out of its directory", "[checkpoint]") {
    for (const std::string name :
         {"../a.safetensors", "/etc/passwd", "..", ".", "", "x/a.safetensors", "./a.safetensors",
          R"(..\\a.safetensors)", R"(C:a)", R"(a.safetensors\u0000)", R"(\n)"}) {
        CAPTURE(name);
        CHECK(contains(error_of_index(weight_map(R"("a":")" + name + "\"")),
                       "expected the name of a file in the same directory"));
    }
}

TEST_CASE("an index that contradicts the shards is refused", "[checkpoint]") {
    CHECK(error_of_index(weight_map(R"("a":"a.safetensors","b":"b.safetensors")")).empty());
    CHECK(contains(error_of_index(weight_map(R"("b":"a.safetensors")")),
                   "a.safetensors': there is no tensor 'b', expected it"));

    const TemporaryFolder folder;
    folder.write("1", shard({"a", "b"}));
    folder.write("2", shard({"b", "c"}));
    folder.write("model.safetensors.index.json", weight_map(R"("a":"1","b":"1","c":"2")"));
    const std::string error = format_error_of([&] { (void)io::SafetensorsCheckpoint(folder.path()); });
    CHECK(contains(error, "tensor 'b' is here, expected it in '1' only"));
}

TEST_CASE("a malformed index is refused", "[checkpoint]") {
    CHECK(contains(error_of_index(""), "index starts with '', expected '{'"));
    CHECK(contains(error_of_index("[]"), "index starts with '[', expected '{'"));
    CHECK(contains(error_of_index("{}"), "index has no weight_map"));
    CHECK(contains(error_of_index("{"), "index is not JSON"));
    CHECK(contains(error_of_index(R"({"weight_map":[]})"), "weight_map is an array, expected an object"));
    CHECK(contains(error_of_index(R"({"weight_map":"a.safetensors"})"), "weight_map is the string"));
    CHECK(contains(error_of_index(R"({"weight_map":{},"weight_map":{}})"), "weight_map occurs twice"));
    CHECK(contains(error_of_index(weight_map(R"("a":1)")), "weight_map entry 'a' is 1"));
    CHECK(contains(error_of_index(weight_map(R"("a":null)")), "weight_map entry 'a' is null"));
    CHECK(contains(error_of_index(weight_map(R"("a":{"b":"c"})")), "weight_map entry 'a' is an object"));
    CHECK(contains(error_of_index(weight_map(R"("a":["b"])")), "weight_map entry 'a' is an array"));
    CHECK(contains(error_of_index(weight_map(R"("a":"a.safetensors","a":"b.safetensors")")),
                   "tensor 'a' occurs twice in weight_map"));
    CHECK(contains(error_of_index(R"({"metadata":)" + std::string(100'000, '[')),
                   "nested deeper than 32 levels"));
    CHECK(contains(error_of_index(std::string("{\"weight_map\":{}}\0", 18)), "holds a zero byte at 17"));
    CHECK(contains(error_of_index(weight_map("\"\xff\":\"a.safetensors\"")), "index is not JSON"));
    CHECK(error_of_index(weight_map("")).empty());
}
