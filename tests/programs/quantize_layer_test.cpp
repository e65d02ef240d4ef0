/// The example program from outside: what it prints, writes and refuses.

#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <residua/io.hpp>
#include <string>
#include <vector>

#include "catch.hpp"
#include "programs/program.hpp"

using namespace residua;

namespace {

Output quantize_layer(const Folder& folder, const std::string& arguments) {
    return run_program(RESIDUA_QUANTIZE_LAYER, folder, arguments);
}

/// A layer of 8 x 16 with 40 tokens, values as `value(tensor, i)`.
template <class Value>
void write_layer(const std::string& path, Value value, Index x_columns = 16, bool reference = true) {
    const auto tensor = [&](const char* name, Index rows, Index cols) {
        std::vector<float> values(std::size_t(rows * cols));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(std::string(name), i);
        return values;
    };
    const auto weight = tensor("weight", 8, 16), x = tensor("x", 40, x_columns),
               x_fp = tensor("x_fp", 40, x_columns);
    std::vector<io::TensorInfo> tensors = {io::tensor_of("weight", {8, 16}, weight),
                                           io::tensor_of("x", {40, x_columns}, x)};
    if (reference) tensors.push_back(io::tensor_of("x_fp", {40, x_columns}, x_fp));
    io::write_safetensors(path, tensors);
}

float wave(const std::string& tensor, std::size_t i) {
    return std::sin(0.37f * float(i) * float(i % 13 + 1)) +
           (tensor == "x_fp" ? 0.05f * std::cos(float(i)) : 0.0f);
}

}  // namespace

TEST_CASE("quantize_layer: QEP is best on the held-back tokens of the shipped layer", "[programs]") {
    const Folder folder;
    const Output result = quantize_layer(folder, "--bits 3 --group-size 128 --symmetric restricted --json");
    REQUIRE(result.code == 0);
    std::map<std::string, double> error;
    for (const auto& row : nlohmann::json::parse(result.out)) {
        CHECK(row.at("status") == "success");
        CHECK(row.at("objective").get<double>() > 0);
        CHECK(row.at("accumulate_seconds").get<double>() >= 0);
        CHECK(row.at("solve_seconds").get<double>() > 0);
        error[row.at("method")] = row.at("relative_output_error");
    }
    REQUIRE(error.size() == 7);
    for (const auto& [method, value] : error) {
        CAPTURE(method);
        CHECK(value > 0);
        if (method != "qep") CHECK(error.at("qep") < value);
        if (method != "rtn") CHECK(value < error.at("rtn"));
    }
}

TEST_CASE("quantize_layer: the scale search by loss lowers the objective", "[programs]") {
    const Folder folder;
    const auto objective = [&](const std::string& search) {
        const Output result = quantize_layer(folder, "--method gptq --bits 3 --json " + search);
        REQUIRE(result.code == 0);
        return nlohmann::json::parse(result.out).at(0).at("objective").get<double>();
    };
    const double by_norm = objective("--scale-search norm");
    CHECK(objective("--clip") == by_norm);
    CHECK(objective("--scale-search loss --scale-survivors 1") == by_norm);
    CHECK(objective("--scale-search loss") < by_norm);
}

TEST_CASE("quantize_layer: the written tensors decode to the written weights", "[programs]") {
    const Folder folder;
    const std::string input = folder / "layer.safetensors", output = folder / "q.safetensors";
    write_layer(input, wave);
    const Output result = quantize_layer(
        folder, "--input " + input + " --output " + output +
                    " --method gptaq --group-size 5 --order activation --bits 4 --symmetric none");
    REQUIRE(result.code == 0);

    const io::SafetensorsFile file(output);
    const auto codes = file.read<std::uint8_t>("codes");
    const auto scales = file.read<float>("scales"), zeros = file.read<float>("zeros");
    const auto dequantized = file.read<float>("dequantized");
    const auto group_index = file.read<std::int32_t>("group_index");
    REQUIRE(codes.size() == 8 * 16);
    REQUIRE(scales.size() == 8 * 4);
    REQUIRE(group_index.size() == 16);
    CHECK(file.metadata().at("method") == "gptaq");
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const std::size_t g = i / 16 * 4 + std::size_t(group_index[i % 16]);
        CHECK(codes[i] < 16);
        CHECK(dequantized[i] == scales[g] * (float(codes[i]) - zeros[g]));
    }
}

TEST_CASE("quantize_layer: without reference inputs the methods that need them say so", "[programs]") {
    const Folder folder;
    const std::string input = folder / "layer.safetensors";
    write_layer(input, wave, 16, false);
    const Output all = quantize_layer(folder, "--json --input " + input);
    CHECK(all.code == 0);
    for (const auto& row : nlohmann::json::parse(all.out)) {
        const std::string method = row.at("method");
        const bool needs = method == "gptaq" || method == "rescomp" || method == "qep" || method == "qronos";
        CHECK((row.at("status") == "success") == !needs);
        CHECK(row.at("relative_output_error").is_null() == needs);
    }
    const Output one = quantize_layer(folder, "--method gptaq --input " + input);
    CHECK(one.code == 2);
    CHECK(contains(one.err, "x_fp"));
}

TEST_CASE("quantize_layer: values that are not finite become a status", "[programs]") {
    const Folder folder;
    const std::string input = folder / "layer.safetensors";
    for (const std::string bad : {"weight", "x", "x_fp"}) {
        CAPTURE(bad);
        write_layer(input, [&](const std::string& tensor, std::size_t i) {
            return tensor == bad && i == 21 ? std::numeric_limits<float>::quiet_NaN() : wave(tensor, i);
        });
        const Output result = quantize_layer(folder, "--json --method qep --input " + input);
        CHECK(result.code == 1);
        const auto rows = nlohmann::json::parse(result.out);
        CHECK(contains(rows.at(0).at("status").get<std::string>(), "non-finite"));
        CHECK(rows.at(0).at("relative_output_error").is_null());
    }
}

TEST_CASE("quantize_layer: bad arguments and files are refused by name, and nothing is written",
          "[programs]") {
    const Folder folder;
    const std::string input = folder / "layer.safetensors", output = folder / "q.safetensors";
    write_layer(input, wave);
    write_layer(folder / "narrow.safetensors", wave, 12);
    std::ofstream(folder / "empty.safetensors");
    std::ofstream(folder / "short.safetensors") << "123";

    struct Case {
        std::string arguments, message;
    };
    const std::string in = "--input " + input + " ";
    for (const Case& c : std::vector<Case>{
             {in + "--bits 9", "bits is 9"},
             {in + "--bits x", "--bits"},
             {in + "--group-size -2", "group_size is -2"},
             {in + "--method best", "--method"},
             {in + "--alpha 2 --method gptaq", "alpha is 2"},
             {in + "--damping nan", "initial is nan"},
             {in + "--block-size 0", "block_size is 0"},
             {in + "--method all", "--method is all"},
             {in + "--format q4", "--format"},
             {in + "--device tpu", "--device"},
             {in + "--format nvfp4 --device cuda", "--device is cuda"},
             {in + "--format nvfp4 --group-size 32", "group_size is 32, expected 16"},
             {in + "--format gguf-q3_k --group-size 32", "group_size is 32, expected 16"},
             {in + "--format gguf-q4_k --method gptq", "columns of weight are 16, expected a multiple of 32"},
             {in + "--nonsense", "--nonsense"},
             {"--method gptq --input " + (folder / "absent.safetensors"), "absent.safetensors"},
             {"--method gptq --input " + (folder / "empty.safetensors"), "0 bytes"},
             {"--method gptq --input " + (folder / "short.safetensors"), "3 bytes"},
             {"--method gptq --input " + (folder / "narrow.safetensors"), "columns: 12, expected 16"}}) {
        CAPTURE(c.arguments);
        const Output result = quantize_layer(folder, c.arguments + " --output " + output);
        CAPTURE(result.err);
        CHECK(result.code != 0);
        CHECK(result.out.empty());
        CHECK(contains(result.err, c.message));
        CHECK(!fs::exists(output));
    }
}
