/// llama_quantize --device cuda from outside, beside --device cpu.

#include <map>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "programs/program.hpp"

namespace {

/// By its words: a program that was built without CUDA, or a machine without a device.
bool has_device() {
    static const bool found = [] {
        const Folder folder;
        const Output result = llama_quantize(
            folder, "--window 16 --calibration-windows 1 --eval-windows 1 --method none --device cuda");
        if (result.code == 0) return true;
        INFO(result.err);
        CHECK((contains(result.err, "built without RESIDUA_CUDA") ||
               contains(result.err, "cudaGetDeviceCount")));
        return false;
    }();
    if (!found) WARN("skipped: no CUDA device");
    return found;
}

std::map<std::string, double> perplexities(const Output& result) {
    INFO(result.err);
    REQUIRE(result.code == 0);
    std::map<std::string, double> values;
    for (const auto& row : nlohmann::json::parse(result.out)) values[row["method"]] = row["perplexity"];
    return values;
}

}  // namespace

TEST_CASE("llama_quantize: the device's perplexities are the CPU's", "[programs][device]") {
    if (!has_device()) return;
    constexpr double measured = 2e-3;  // of the same weights: bfloat16 moves losses of single tokens by 1e-2
    constexpr double quantized =
        2e-2;  // of codes of their own, by solves that see other roundings of the inputs
    const Folder folder;
    const std::string options =
        "--window 128 --calibration-windows 64 --eval-windows 64 --bits 3 --refine 1 --residual-stream "
        "--final-norm "
        "--methods rtn,gptq,qep --json --device ";
    const auto cpu = perplexities(llama_quantize(folder, options + "cpu"));
    const auto cuda = perplexities(llama_quantize(folder, options + "cuda"));
    REQUIRE(cpu.size() == 4);
    REQUIRE(cuda.size() == 4);
    for (const auto& [method, wanted] : cpu) {
        CAPTURE(method);
        const bool is_same = method == "full precision" || method == "rtn";
        CHECK(cuda.at(method) == Approx(wanted).epsilon(is_same ? measured : quantized));
    }
    CHECK(cuda.at("qep") < cuda.at("rtn"));
}

TEST_CASE("llama_quantize: what the device writes is what it measured, and is gone on with",
          "[programs][device]") {
    if (!has_device()) return;
    constexpr double tolerance = 2e-3;
    const std::string rotation = GENERATE("none", "hadamard", "hadamard --online-hadamard");
    const Folder folder;
    const std::string output = folder / "model";
    const std::string options =
        "--window 64 --calibration-windows 16 --eval-windows 8 --method gptq --bits 4 --json "
        "--no-baseline --device cuda --rotate " +
        rotation + " --output " + output;
    const double measured = perplexities(llama_quantize(folder, options)).at("gptq");
    CHECK(perplexities(llama_quantize(folder, options + " --resume")).at("gptq") ==
          Approx(measured).epsilon(1e-6));
    fs::remove(output + "/model-00003-of-00007.safetensors");
    CHECK(perplexities(llama_quantize(folder, options + " --resume")).at("gptq") ==
          Approx(measured).epsilon(tolerance));
    const std::string tiny = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";
    for (const std::string device : {"cpu", "cuda"}) {
        const Output read =
            llama_quantize(folder, "--window 64 --eval-windows 8 --method none --json --model " + output +
                                       " --calibration " + tiny + "/calibration.txt --eval " + tiny +
                                       "/eval.txt --device " + device);
        CHECK(perplexities(read).at("full precision") == Approx(measured).epsilon(tolerance));
    }
}
