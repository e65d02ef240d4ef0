#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "safetensors_bytes.hpp"

using namespace residua;
using namespace residua::test;

namespace {

// A header with one tensor "w".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

std::string error_of_one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                         const std::string& data) {
    return parse_error_of(safetensors_bytes(one(dtype, shape, offsets), data));
}

// Two tensors of bytes, "a" and "b", at the offsets given.
std::string two(const std::string& a, const std::string& a_size, const std::string& b,
                const std::string& b_size) {
    return R"({"a":{"dtype":"U8","shape":[)" + a_size + R"(],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[)" + b_size + R"(],"data_offsets":)" + b + "}}";
}

const std::string small_file = safetensors_bytes(
    R"({"__metadata__":{"by":"hand"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})",
    bytes_of<float>({1.5f, -2.0f}));

}  // namespace

TEST_CASE("a file made by hand is read", "[safetensors]") {
    const auto view = parse(small_file);
    CHECK(view.source() == "test.safetensors");
    CHECK(view.names() == std::vector<std::string>{"w"});
    CHECK(view.metadata() == io::Metadata{{"by", "hand"}});
    CHECK(view.contains("w"));
    CHECK_FALSE(view.contains("__metadata__"));
    CHECK(view.info("w").dtype == io::DType::F32);
    CHECK(view.info("w").shape == std::vector<Index>{1, 2});
    CHECK(view.info("w").elements() == 2);
    CHECK(view.read<float>("w") == std::vector{1.5f, -2.0f});
    CHECK(view.read<double>("w") == std::vector{1.5, -2.0});
}

TEST_CASE("a file cut short anywhere is refused", "[safetensors]") {
    for (std::size_t size = 0; size < small_file.size(); ++size) {
        CAPTURE(size);
        const std::string cut = small_file.substr(0, size);  // of its own, so that sanitizers see its end
        CHECK(contains(parse_error_of(cut), "residua: 'test.safetensors': "));
    }
    CHECK(parse_error_of(small_file).empty());
    CHECK(
        contains(parse_error_of(small_file + "x"), "the tensors end at 8, expected 9, the size of the data"));
}

TEST_CASE("a file with any one byte replaced is read or refused, no more", "[safetensors]") {
    for (std::size_t i = 0; i < small_file.size(); ++i) {
        for (const int byte : {0x00, 0x01, 0x22, 0x2d, 0x39, 0x7b, 0x7f, 0x80, 0xff}) {
            std::string file = small_file;
            file[i] = static_cast<char>(byte);
            fuzz::run_safetensors(reinterpret_cast<const std::uint8_t*>(file.data()), file.size());
        }
    }
    SUCCEED();
}

TEST_CASE("header sizes that cannot be are refused", "[safetensors]") {
    const auto with_size = [](std::uint64_t size) { return bytes_of({size}) + "{}      "; };
    CHECK(parse(with_size(8)).tensors().empty());
    CHECK(contains(parse_error_of(with_size(std::uint64_t{1} << 63)),
                   "the size of the header is 9223372036854775808"));
    CHECK(contains(parse_error_of(with_size(~std::uint64_t{0})),
                   "the size of the header is 18446744073709551615"));
    CHECK(contains(parse_error_of(with_size(100'000'001)), "expected at most 100000000"));
    CHECK(contains(parse_error_of(with_size(9)),
                   "the size of the header is 9, expected at most 8 in a file of 16 bytes"));
    CHECK(contains(parse_error_of(with_size(0)), "header starts with '', expected '{'"));
    CHECK(contains(parse_error_of("1234567"), "file has 7 bytes, expected at least 8"));
}

TEST_CASE("headers that are not one JSON object are refused", "[safetensors]") {
    for (const std::string header : {
             "[]",
             "null",
             "\"w\"",
             " {}",
             "\xef\xbb\xbf{}",
             "{",
             "{} {}",
             "{}x",
             "{,}",
             "{\"a\":}",
             "{a:1}",
             "{}/**/",
             "{'w':1}",
             "{\"w\":NaN}",
             "{\"w\":Infinity}",
             "{\"w\":1e400}",
             "{\"w\":01}",
             "{\"w\":+1}",
         }) {
        CAPTURE(header);
        CHECK_FALSE(parse_error_of(safetensors_bytes(header)).empty());
    }
    CHECK(parse_error_of(safetensors_bytes("{} \t\r\n ")).empty());
    // A zero byte would end the text for a careless reader.
    CHECK(contains(parse_error_of(safetensors_bytes(std::string("{}\0\0", 4))), "zero byte at 2"));
}

TEST_CASE("text that is not UTF-8 is refused", "[safetensors]") {
    for (const std::string bad :
         {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) {
        const std::string message = parse_error_of(
            safetensors_bytes("{\"" + bad + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"));
        CHECK(contains(message, "is not JSON"));
        CHECK(message.find_first_of(bad) == std::string::npos);  // nor is it passed on
        CHECK_FALSE(parse_error_of(safetensors_bytes("{\"__metadata__\":{\"k\":\"" + bad + "\"}}")).empty());
    }
    const std::string name = "\xc3\xa9\xf0\x9f\x98\x80";
    const auto file =
        safetensors_bytes("{\"" + name + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})");
    CHECK(parse(file).contains(name));
}

TEST_CASE("duplicate keys are refused", "[safetensors]") {
    const std::string w = R"("w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    const auto error = [](const std::string& header) { return parse_error_of(safetensors_bytes(header)); };
    CHECK(error("{" + w + "}").empty());
    CHECK(contains(error("{" + w + "," + w + "}"), "tensor 'w' occurs twice"));
    CHECK(contains(error("{" + w + R"(,"\u0077":{}})"), "tensor 'w' occurs twice"));
    CHECK(contains(error(R"({"__metadata__":{},"__metadata__":{}})"), "__metadata__ occurs twice"));
    CHECK(contains(error(R"({"__metadata__":{"k":"1","k":"1"}})"), "key 'k' occurs twice in __metadata__"));
    CHECK(contains(error(R"({"w":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
                   "tensor 'w' has dtype twice"));
    CHECK(contains(error(R"({"w":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})"),
                   "tensor 'w' has shape twice"));
}

TEST_CASE("entries of the wrong kind are refused", "[safetensors]") {
    const auto error = [](const std::string& header) { return parse_error_of(safetensors_bytes(header)); };
    CHECK(contains(error(R"({"w":1})"), "tensor 'w' is 1, expected an object"));
    CHECK(contains(error(R"({"w":[]})"), "tensor 'w' is an array, expected an object"));
    CHECK(contains(error(R"({"w":null})"), "tensor 'w' is null, expected an object"));
    CHECK(contains(error(R"({"w":{}})"), "tensor 'w' has no dtype"));
    CHECK(contains(error(R"({"w":{"dtype":"U8","data_offsets":[0,0]}})"), "tensor 'w' has no shape"));
    CHECK(contains(error(R"({"w":{"dtype":"U8","shape":[0]}})"), "tensor 'w' has no data_offsets"));
    CHECK(contains(error(R"({"w":{"scale":1}})"), "tensor 'w' has the field 'scale', expected dtype, shape"));
    CHECK(contains(error(R"({"w":{"dtype":{}}})"), "dtype of tensor 'w' is an object"));
    CHECK(contains(error(R"({"w":{"shape":{}}})"), "shape of tensor 'w' is an object"));
    CHECK(contains(error(R"({"__metadata__":[]})"), "'__metadata__' is an array, expected an object"));
    CHECK(contains(error(R"({"__metadata__":{"k":1}})"), "metadata 'k' is 1, expected a string"));
    CHECK(contains(error(R"({"__metadata__":{"k":{}}})"), "metadata 'k' is an object, expected a string"));
    CHECK(contains(error(R"({"__metadata__":{"k":true}})"), "metadata 'k' is true, expected a string"));
}

TEST_CASE("deep nesting is refused without recursion", "[safetensors]") {
    for (const std::string open : {"[", R"({"w":)"}) {
        std::string deep = R"({"w":)";
        for (int i = 0; i < 1'000'000; ++i) deep += open;
        CHECK_FALSE(parse_error_of(safetensors_bytes(deep)).empty());
    }
    CHECK(contains(error_of_one(R"("U8")", "[[0]]", "[0,0]", ""), "shape of tensor 'w' is an array"));
}

TEST_CASE("unknown dtypes are refused", "[safetensors]") {
    CHECK(contains(error_of_one(R"("F31")", "[0]", "[0,0]", ""),
                   "dtype of tensor 'w' is 'F31', expected one of BOOL"));
    CHECK(contains(error_of_one(R"("f32")", "[0]", "[0,0]", ""), "is 'f32'"));
    CHECK(contains(error_of_one(R"("")", "[0]", "[0,0]", ""), "is ''"));
    CHECK(contains(error_of_one("7", "[0]", "[0,0]", ""), "dtype of tensor 'w' is 7"));
}

TEST_CASE("numbers that are no extents are refused", "[safetensors]") {
    for (const std::string number : {"-1", "-0", "1.0", "1e0", "1.5", "18446744073709551616", "1e300", "true",
                                     "null", "\"1\"", "9223372036854775808", "-9223372036854775809"}) {
        CAPTURE(number);
        CHECK(contains(error_of_one(R"("U8")", "[" + number + "]", "[0,1]", "x"), "shape of tensor 'w' is "));
    }
    for (const std::string number :
         {"-1", "1.0", "1e0", "18446744073709551616", "true", "null", "\"1\"", "[]"}) {
        CAPTURE(number);
        CHECK(contains(error_of_one(R"("U8")", "[1]", "[0," + number + "]", "x"),
                       "data_offsets of tensor 'w' is "));
    }
    for (const std::string number : {"NaN", "Infinity", "1e400", "-1e400", "0x1", "1."}) {
        CAPTURE(number);
        CHECK(contains(error_of_one(R"("U8")", "[" + number + "]", "[0,1]", "x"), "header is not JSON"));
    }
    CHECK(contains(error_of_one(R"("U8")", "[1]", "[0]", "x"), "is an array of 1, expected an array of 2"));
    CHECK(contains(error_of_one(R"("U8")", "[1]", "[]", "x"), "is an array of 0, expected an array of 2"));
    CHECK(contains(error_of_one(R"("U8")", "[1]", "[0,1,1]", "x"), "is an array of more than 2"));
}

TEST_CASE("shapes that lie about the data are refused", "[safetensors]") {
    CHECK(contains(error_of_one(R"("F32")", "[2]", "[0,4]", "1234"),
                   "tensor 'w' has data_offsets [0, 4], 4 bytes, expected 8 for shape [2] of F32"));
    CHECK(contains(error_of_one(R"("F16")", "[2]", "[0,8]", "12345678"), "expected 4 for shape [2] of F16"));
    CHECK(contains(error_of_one(R"("U8")", "[]", "[0,0]", ""), "0 bytes, expected 1 for shape [] of U8"));
    // 2^32 * 2^32 = 0 and 2^61 * 8 = 0 for arithmetic that wraps.
    CHECK(contains(error_of_one(R"("U8")", "[4294967296,4294967296]", "[0,0]", ""),
                   "expected less than 2^63 bytes"));
    CHECK(contains(error_of_one(R"("F64")", "[2305843009213693952]", "[0,0]", ""),
                   "expected less than 2^63 bytes"));
    CHECK(contains(error_of_one(R"("U8")", "[0,4294967296,4294967296]", "[0,0]", ""),
                   "expected less than 2^63"));
    std::string ones = "1";
    for (int i = 1; i < 64; ++i) ones += ",1";
    CHECK(error_of_one(R"("U8")", "[" + ones + "]", "[0,1]", "x").empty());
    CHECK(contains(error_of_one(R"("U8")", "[" + ones + ",1]", "[0,1]", "x"), "is an array of more than 64"));
}

TEST_CASE("offsets that do not tile the data are refused", "[safetensors]") {
    const auto error = [](const std::string& a, const std::string& a_size, const std::string& b,
                          const std::string& b_size, const std::string& data) {
        return parse_error_of(safetensors_bytes(two(a, a_size, b, b_size), data));
    };
    CHECK(error("[0,2]", "2", "[2,4]", "2", "1234").empty());
    CHECK(error("[2,4]", "2", "[0,2]", "2", "1234").empty());
    CHECK(contains(error("[0,3]", "3", "[2,4]", "2", "1234"), "'b' starts at 2, expected 3: it overlaps"));
    CHECK(contains(error("[0,4]", "4", "[0,4]", "4", "1234"), "starts at 0, expected 4: it overlaps"));
    CHECK(
        contains(error("[0,1]", "1", "[2,4]", "2", "1234"), "'b' starts at 2, expected 1: there is a hole"));
    CHECK(
        contains(error("[1,2]", "1", "[2,4]", "2", "1234"), "'a' starts at 1, expected 0: there is a hole"));
    CHECK(contains(error("[0,1]", "1", "[1,2]", "1", "1234"), "the tensors end at 2, expected 4"));
    CHECK(contains(error("[0,2]", "2", "[4,2]", "2", "1234"), "[4, 2], expected begin <= end <= 4"));
    CHECK(contains(error("[0,2]", "2", "[2,5]", "3", "1234"), "[2, 5], expected begin <= end <= 4"));
    CHECK(contains(error("[0,2]", "2", "[18446744073709551615,1]", "2", "1234"), "expected begin <= end"));
    CHECK(contains(error("[0,2]", "2", "[2,18446744073709551615]", "2", "1234"), "expected begin <= end"));
}

TEST_CASE("scalars and empty tensors", "[safetensors]") {
    const auto file =
        safetensors_bytes(R"({"scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                          R"("start":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                          R"("end":{"dtype":"F32","shape":[1152921504606846976,0],"data_offsets":[8,8]}})",
                          bytes_of<double>({0.25}));
    const auto view = parse(file);
    CHECK(view.info("scalar").elements() == 1);
    CHECK(view.read<double>("scalar") == std::vector{0.25});
    CHECK(view.read<float>("start").empty());
    CHECK(view.matrix_view<float>("start").rows == 0);
    CHECK(view.matrix_view<float>("start").cols == 7);
    CHECK(view.visit_matrix("end", [](auto matrix) { return matrix.cols; }) == 0);
    CHECK(contains(format_error_of([&] { (void)view.matrix_view<double>("scalar"); }),
                   "tensor 'scalar' has rank 0, expected 2"));

    // An empty tensor inside another one covers nothing, and yet is out of place.
    CHECK_FALSE(parse_error_of(safetensors_bytes(two("[0,4]", "4", "[2,2]", "0"), "1234")).empty());
    CHECK(parse_error_of(safetensors_bytes(two("[0,4]", "4", "[4,4]", "0"), "1234")).empty());
    CHECK(parse(safetensors_bytes("{}")).names().empty());
}

TEST_CASE("reading converts between floating dtypes and no others", "[safetensors]") {
    const auto file = safetensors_bytes(
        R"({"f64":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},"f32":{"dtype":"F32","shape":[1],"data_offsets":[24,28]},)"
        R"("f16":{"dtype":"F16","shape":[2],"data_offsets":[28,32]},"bf16":{"dtype":"BF16","shape":[2],"data_offsets":[32,36]},)"
        R"("i8":{"dtype":"I8","shape":[2],"data_offsets":[36,38]},"u8":{"dtype":"U8","shape":[1],"data_offsets":[38,39]},)"
        R"("bool":{"dtype":"BOOL","shape":[1],"data_offsets":[39,40]}})",
        bytes_of<double>({0.1, 1e300, -0.0}) + bytes_of<float>({0.1f}) +
            bytes_of<std::uint16_t>({0x3c00, 0x0001}) + bytes_of<std::uint16_t>({0x3f80, 0x7f80}) +
            bytes_of<std::int8_t>({-1, 127}) + "\xff\x01");
    const auto view = parse(file);
    const auto f64 = view.read<float>("f64");
    CHECK(f64[0] == 0.1f);
    CHECK(std::isinf(f64[1]));
    CHECK(std::signbit(f64[2]));
    CHECK(view.read<double>("f32") == std::vector{static_cast<double>(0.1f)});
    CHECK(view.read<float>("f16") == std::vector{1.0f, 0x1p-24f});
    CHECK(view.read<double>("bf16") == std::vector{1.0, std::numeric_limits<double>::infinity()});
    CHECK(view.read<bfloat16>("bf16")[1].bits == 0x7f80);
    CHECK(view.read<std::int8_t>("i8") == std::vector<std::int8_t>{-1, 127});
    CHECK(view.read<std::uint8_t>("u8") == std::vector<std::uint8_t>{255});

    std::vector<float> two_values(2);
    view.read<float>("f16", two_values);
    CHECK(two_values[0] == 1.0f);

    const auto error = [&](auto call) { return format_error_of(call); };
    CHECK(contains(error([&] { (void)view.read<float16>("bf16"); }),
                   "tensor 'bf16' has dtype BF16, expected F16"));
    CHECK(contains(error([&] { (void)view.read<float>("i8"); }),
                   "has dtype I8, expected F64, F32, F16 or BF16"));
    CHECK(contains(error([&] { (void)view.read<int>("i8"); }), "tensor 'i8' has dtype I8, expected I32"));
    CHECK(contains(error([&] { (void)view.read<std::uint8_t>("bool"); }), "has dtype BOOL, expected U8"));
    CHECK(contains(error([&] { view.read<float>("f64", two_values); }),
                   "tensor 'f64' has 3 elements, expected 2 (the buffer's size)"));
}

TEST_CASE("tensors at any address are read", "[safetensors]") {
    // Headers of every length modulo 8 put the data at every alignment.
    for (std::size_t padding = 0; padding < 8; ++padding) {
        CAPTURE(padding);
        const auto file = safetensors_bytes(one(R"("F64")", "[1,2]", "[0,16]") + std::string(padding, ' '),
                                            bytes_of<double>({1.5, -3.0}));
        const auto view = parse(file);
        CHECK(view.read<double>("w") == std::vector{1.5, -3.0});
        CHECK(view.read<float>("w") == std::vector{1.5f, -3.0f});
        CHECK(view.visit_matrix(
                  "w", [](auto matrix) { return static_cast<double>(matrix(0, 0) + matrix(0, 1)); }) == -1.5);

        const auto address = reinterpret_cast<std::uintptr_t>(view.info("w").bytes.data());
        const std::string error = format_error_of([&] { (void)view.matrix_view<double>("w"); });
        if (error.empty())
            CHECK(view.matrix_view<double>("w")(0, 1) == -3.0);
        else
            CHECK(contains(error, "tensor 'w' starts " + std::to_string(address % alignof(double)) +
                                      " bytes past a multiple of 8"));
    }
}

TEST_CASE("visiting passes on what the visitor returns, whatever it takes", "[safetensors]") {
    const auto view = parse(small_file);
    CHECK(view.visit_matrix("w", []<class T>(MatrixView<const T>) { return sizeof(T); }) == sizeof(float));
    int calls = 0;
    view.visit_matrix("w", [&](auto) { ++calls; });
    CHECK(calls == 1);
}

TEST_CASE("a missing tensor is named beside those that there are", "[safetensors]") {
    CHECK(format_error_of([] { (void)parse(small_file).info("v"); }) ==
          "residua: 'test.safetensors': there is no tensor 'v', expected one of 'w'");
    CHECK(contains(format_error_of([] { (void)parse(safetensors_bytes("{}")).read<float>("v"); }),
                   "none: the file has no tensors"));
    std::string header = "{";
    for (int i = 10; i < 30; ++i)
        header += (i > 10 ? "," : "") + ("\"t" + std::to_string(i)) +
                  R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    const auto file = safetensors_bytes(header + "}");
    const auto view = parse(file);
    const std::string error = format_error_of([&] { (void)view.info("t9"); });
    CHECK(contains(error, "'t10', 't11'"));
    CHECK(contains(error, "'t21' and 8 more"));
    CHECK_FALSE(contains(error, "'t22'"));
}

TEST_CASE("messages do not repeat control characters or long names", "[safetensors]") {
    const std::string error = parse_error_of(safetensors_bytes(R"({"\u001b[2J\n\u0000":1})"));
    CHECK(contains(error,
                   "tensor '?[2J?"
                   "?' is 1"));
    CHECK(parse_error_of(safetensors_bytes("{\"" + std::string(5000, 'x') + "\":1}")).size() < 250);
    CHECK(io::detail::in_quotes("ab\xc3\xa9", 3) == "'ab...'");
    CHECK(io::detail::in_quotes("ab\xc3\xa9", 4) == "'ab\xc3\xa9'");
}
