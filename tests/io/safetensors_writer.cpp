#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.hpp"
#include "safetensors_bytes.hpp"

#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#endif

using namespace residua;
using namespace residua::test;
using io::DType;

namespace {

std::string misuse_of(auto&& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

std::size_t files_in(const TemporaryFolder& folder) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder.path()),
                                                  std::filesystem::directory_iterator{}));
}

const std::vector<std::byte> three(3, std::byte{7});

}  // namespace

TEST_CASE("a small file, byte by byte", "[writer]") {
    const TemporaryFolder folder;
    io::SafetensorsWriter writer(folder / "f", {{"w", DType::F16, {1, 2}}, {"n\"", DType::U8, {}}},
                                 {{"by", "\xc3\xa9\n"}});
    writer.append("w", std::vector{float16(1.0f), float16(-2.0f)});
    writer.append("n\"", std::vector<std::uint8_t>{5});
    writer.commit();
    CHECK(read_file(folder / "f") ==
          std::string("\x90\0\0\0\0\0\0\0", 8) +
              "{\"__metadata__\":{\"by\":\"\xc3\xa9\\n\"},"
              "\"w\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[0,4]},"
              "\"n\\\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[4,5]}}      " +
              std::string("\x00\x3c\x00\xc0\x05", 5));
}

TEST_CASE("no tensors at all", "[writer]") {
    const TemporaryFolder folder;
    io::write_safetensors(folder / "f", {});
    CHECK(read_file(folder / "f") == std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
    CHECK(io::SafetensorsFile(folder / "f").tensors().empty());
}

TEST_CASE("every dtype survives a round trip", "[writer]") {
    const TemporaryFolder folder;
    std::vector<std::byte> bytes;
    for (int i = 0; i < 64; ++i) bytes.push_back(static_cast<std::byte>(i * 37));

    std::vector<io::TensorInfo> tensors;
    for (const auto& facts : io::detail::dtype_facts) {
        const std::span<const std::byte> data(bytes);
        const std::string name(facts.name);
        tensors.push_back({name, facts.dtype, {2, 1, 3}, data.first(6 * facts.size)});
        tensors.push_back({name + ".scalar", facts.dtype, {}, data.first(facts.size)});
        tensors.push_back({name + ".empty", facts.dtype, {3, 0}, {}});
    }
    const io::Metadata metadata = {{"", "empty key"}, {"json", R"({"bits":4})"}};
    io::write_safetensors(folder / "f", tensors, metadata);

    const io::SafetensorsFile file(folder / "f");
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == tensors.size());
    for (const io::TensorInfo& written : tensors) {
        CAPTURE(written.name);
        const io::TensorInfo& read = file.info(written.name);
        CHECK(read.dtype == written.dtype);
        CHECK(read.shape == written.shape);
        CHECK(std::ranges::equal(read.bytes, written.bytes));
        // Widest first: everything is aligned.
        CHECK((read.bytes.empty() ||
               reinterpret_cast<std::uintptr_t>(read.bytes.data()) % io::size_of(read.dtype) == 0));
    }

    // The same again is the same bytes.
    io::write_safetensors(folder / "g", tensors, metadata);
    CHECK(read_file(folder / "f") == read_file(folder / "g"));
}

TEST_CASE("typed round trips", "[writer]") {
    const TemporaryFolder folder;
    const std::vector<float> f32 = {1.0f, -0.0f, 3.0f, 4.0f, 5.0f, 6.0f};
    const std::vector<long long> i64 = {-1, 1ll << 62};
    const std::uint16_t u16[] = {1, 65535};
    io::write_safetensors(folder / "f", {io::tensor_of("u16", {2}, u16), io::tensor_of("f32", {2, 3}, f32),
                                         io::tensor_of("i64", {2, 1}, i64)});
    const io::SafetensorsFile file(folder / "f");
    CHECK(file.read<float>("f32") == f32);
    CHECK(file.read<std::int64_t>("i64") == std::vector<std::int64_t>{-1, std::int64_t{1} << 62});
    CHECK(file.matrix_view<std::int64_t>("i64")(1, 0) == std::int64_t{1} << 62);
    CHECK(file.read<std::uint16_t>("u16") == std::vector<std::uint16_t>{1, 65535});
}

TEST_CASE("tensors are appended in pieces, rows and parts of rows", "[writer]") {
    const TemporaryFolder folder;
    std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const MatrixView<float> all(values.data(), 3, 4);
    io::SafetensorsWriter writer(folder / "f", {{"none", DType::F32, {0}},
                                                {"block", DType::F32, {3, 2}},
                                                {"raw", DType::F8E4M3, {7}},
                                                {"nothing", DType::F32, {5, 0}}});
    writer.append("block", all.block(0, 1, 1, 2));
    writer.append("block", MatrixView<const float>(all.block(1, 1, 2, 2)));
    writer.append("block", std::vector<float>{});
    writer.append("raw", three);
    writer.append("raw", std::span(three).first(1));
    writer.append("raw", three);
    writer.append("nothing", std::vector<float>{});
    writer.commit();
    CHECK(io::SafetensorsFile(folder / "f").read<float>("block") == std::vector<float>{1, 2, 5, 6, 9, 10});
}

TEST_CASE("misuse of the writer says what was expected, and leaves nothing behind", "[writer]") {
    const TemporaryFolder folder;
    const auto declare = [&](std::vector<io::TensorSpec> tensors, const io::Metadata& metadata = {}) {
        return misuse_of([&] { io::SafetensorsWriter(folder / "f", tensors, metadata); });
    };
    CHECK(declare({{"w", DType::U8, {3}}}).empty());
    CHECK(contains(declare({{"w", DType::U8, {3}}, {"w", DType::U8, {3}}}), "tensor 'w' is declared twice"));
    CHECK(contains(declare({{"__metadata__", DType::U8, {3}}}), "this is reserved for metadata"));
    CHECK(contains(declare({{"w", DType::U8, {-1, 2}}}), "has shape [-1, 2], expected no extent below 0"));
    CHECK(contains(declare({{"w", DType::U8, {Index{1} << 40, Index{1} << 40}}}),
                   "expected less than 2^63 bytes"));
    CHECK(contains(declare({{"v", DType::U8, {Index{1} << 62}}, {"w", DType::U8, {Index{1} << 62}}}),
                   "tensor 'w' has shape [4611686018427387904], expected less than 2^63 bytes in the file"));
    CHECK(contains(declare({{"\xff", DType::U8, {}}}), "expected UTF-8"));
    CHECK(contains(declare({}, {{"k", "\xff"}}), "the value of a metadata entry is"));
    CHECK(
        contains(declare({{"w", DType::U8, std::vector<Index>(65, 1)}}), "has rank 65, expected at most 64"));

    io::SafetensorsWriter writer(folder / "f", {{"a", DType::U8, {4}}, {"b", DType::F32, {1}}});
    const auto append = [&](std::string_view name, const auto& values) {
        return misuse_of([&] { writer.append(name, values); });
    };
    CHECK(contains(append("b", std::vector<float>(1)), "the tensor is 'b', expected 'a'"));
    CHECK(contains(append("a", std::vector<float>(1)), "the elements are F32, expected U8 for tensor 'a'"));
    CHECK(append("a", three).empty());
    CHECK(contains(append("a", three), "tensor 'a' gets 3 bytes more, expected at most 1"));
    CHECK(contains(misuse_of([&] { writer.commit(); }), "tensor 'a' has got 3 bytes, expected 4"));
    CHECK(append("a", std::span(three).first(1)).empty());
    CHECK(contains(misuse_of([&] { writer.commit(); }), "tensor 'b' has got 0 bytes, expected 4"));
    CHECK(append("b", std::vector<float>(1)).empty());
    CHECK(contains(append("c", three), "the tensor is 'c', expected no more data"));
    CHECK(contains(append("a", three), "expected no more data"));
    CHECK(files_in(folder) == 1);  // the temporary file
    writer.commit();
    CHECK(contains(misuse_of([&] { writer.commit(); }), "expected an open file"));
    CHECK(files_in(folder) == 1);
    CHECK(io::SafetensorsFile(folder / "f").names().size() == 2);
}

TEST_CASE("without commit there is no file, and an older one stays", "[writer]") {
    const TemporaryFolder folder;
    {
        io::SafetensorsWriter writer(folder / "f", {{"w", DType::U8, {3}}});
        writer.append("w", three);
        CHECK_FALSE(std::filesystem::exists(folder / "f"));
        io::SafetensorsWriter moved = std::move(writer);
    }
    CHECK(folder.is_empty());

    folder.write("f", "old");
    { io::SafetensorsWriter writer(folder / "f", {{"w", DType::U8, {3}}}); }
    CHECK(read_file(folder / "f") == "old");
    CHECK(files_in(folder) == 1);
    io::write_safetensors(folder / "f", {{"w", DType::U8, {3}, three}});
    CHECK(io::SafetensorsFile(folder / "f").contains("w"));
    CHECK(files_in(folder) == 1);
}

TEST_CASE("a mapped file outlives its replacement", "[writer]") {
    const TemporaryFolder folder;
    io::write_safetensors(folder / "f", {{"w", DType::U8, {3}, three}});
    const io::SafetensorsFile old(folder / "f");
    // Back onto itself: the temporary file is what makes this safe.
    io::write_safetensors(folder / "f", {{"v", DType::U8, {3}, old.info("w").bytes}});
    CHECK(old.read<std::uint8_t>("w") == io::SafetensorsFile(folder / "f").read<std::uint8_t>("v"));
}

TEST_CASE("failures to create, write and rename are reported and clean up", "[writer]") {
    const TemporaryFolder folder;
    CHECK_THROWS_AS(io::SafetensorsWriter(folder / "absent/f", {}), io::FileError);

    SECTION("a directory has the name") {
        std::filesystem::create_directory(folder / "f");
        CHECK_THROWS_AS(io::write_safetensors(folder / "f", {{"w", DType::U8, {3}, three}}), io::FileError);
        CHECK(files_in(folder) == 1);
    }
    SECTION("the directory vanishes") {
        std::filesystem::create_directory(folder / "d");
        io::SafetensorsWriter writer(folder / "d/f", {{"w", DType::U8, {3}}});
        writer.append("w", three);
        std::filesystem::remove_all(folder / "d");
        CHECK_THROWS_AS(writer.commit(), io::FileError);
        CHECK(folder.is_empty());
    }
#if __has_include(<sys/resource.h>)
    SECTION("a pipe has the name, as a device could") {
        REQUIRE(::mkfifo((folder / "f").c_str(), 0600) == 0);
        CHECK_THROWS_AS(io::write_safetensors(folder / "f", {{"w", DType::U8, {3}, three}}), io::FileError);
        CHECK(std::filesystem::is_fifo(folder / "f"));
        CHECK(files_in(folder) == 1);

        // one that comes while the file is written
        io::SafetensorsWriter writer(folder / "g", {{"w", DType::U8, {3}}});
        writer.append("w", three);
        REQUIRE(::mkfifo((folder / "g").c_str(), 0600) == 0);
        CHECK_THROWS_AS(writer.commit(), io::FileError);
        CHECK(std::filesystem::is_fifo(folder / "g"));
        CHECK(files_in(folder) == 2);
    }
    SECTION("the disk is full") {
        // A limit on the size of files fails writes as a full disk does.
        rlimit before = {};
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
        const auto handler = std::signal(SIGXFSZ, SIG_IGN);
        const std::vector<std::byte> large(1 << 20);
        std::string what;
        std::string after;
        {
            io::SafetensorsWriter writer(folder / "f", {{"w", DType::U8, {2, 1 << 20}}});
            rlimit limit = before;
            limit.rlim_cur = (1 << 20) + 5000;
            ::setrlimit(RLIMIT_FSIZE, &limit);
            try {
                writer.append("w", large);
                writer.append("w", large);
                writer.commit();
            } catch (const io::FileError& error) {
                what = error.what();
            }
            ::setrlimit(RLIMIT_FSIZE, &before);
            after = misuse_of([&] { writer.append("w", std::span(large).first(1)); });
        }
        std::signal(SIGXFSZ, handler);
        CHECK(contains(what, "cannot write '" + (folder / "f").string() + "': File too large"));
        CHECK(contains(after, "is committed, failed or moved from, expected an open file"));
        CHECK(folder.is_empty());
    }
    SECTION("the disk is full at the last moment") {
        // Few enough bytes to wait in a buffer until commit().
        rlimit before = {};
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
        const auto handler = std::signal(SIGXFSZ, SIG_IGN);
        std::string what;
        io::SafetensorsWriter writer(folder / "f", {{"w", DType::U8, {3}}});
        writer.append("w", three);
        rlimit limit = before;
        limit.rlim_cur = 10;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
            writer.commit();
        } catch (const io::FileError& error) {
            what = error.what();
        }
        ::setrlimit(RLIMIT_FSIZE, &before);
        std::signal(SIGXFSZ, handler);
        CHECK(contains(what, "cannot write"));
        CHECK(folder.is_empty());
    }
#endif
}
