/// What the programs say of layers that came out worse than they should, and what they refuse before they work.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <llama/tokens.hpp>
#include <nlohmann/json.hpp>
#include <residua/io.hpp>

#include "catch.hpp"
#include "programs/program.hpp"

using namespace residua;

namespace {

/// A layer of 8 x 32 with 60 tokens, of which column j is scaled by `size(j)`.
void write_scaled_layer(const std::string& path, float (*size)(Index)) {
    std::vector<float> weight(8 * 32), x(60 * 32);
    for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = std::sin(0.9f * float(i) * float(i % 11 + 1));
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = size(Index(i % 32)) * std::sin(0.37f * float(i) * float(i % 13 + 1));
    io::write_safetensors(path, {io::tensor_of("weight", {8, 32}, weight), io::tensor_of("x", {60, 32}, x)});
}

Output quantize_layer_in(const Folder& folder, const std::string& arguments) {
    return run_program(RESIDUA_QUANTIZE_LAYER, folder, arguments);
}

}  // namespace

TEST_CASE("quantize_layer: a layer that is not what it should be does not pass for success", "[programs]") {
    const Folder folder;
    const std::string input = folder / "layer.safetensors";
    const std::string run = "--method gptq --group-size 16 --input " + input + " ";

    write_scaled_layer(input, [](Index) { return 1e-30f; });  // whose squares vanish in float
    const Output vanished = quantize_layer_in(folder, run);
    CHECK(vanished.code == 1);
    CHECK(contains(vanished.out, "dead inputs"));
    const Output rounded = quantize_layer_in(folder, run + "--on-failure round --allow-degraded");
    CHECK(rounded.code == 0);
    CHECK(contains(rounded.err, "gptq: rounded to nearest because of dead inputs\n"));
    CHECK(quantize_layer_in(folder, run + "--on-failure round").code == 1);

    write_scaled_layer(input, [](Index j) { return j < 3 ? 0.0f : 1.0f; });  // less than a tenth
    const Output dead = quantize_layer_in(folder, run);
    CHECK(dead.code == 1);
    CHECK(contains(dead.err, "gptq: 3 inputs are always zero, their weights became zero"));
    CHECK(quantize_layer_in(folder, run + "--allow-degraded").code == 0);
    CHECK(contains(quantize_layer_in(folder, run + "--max-dead-inputs 0.05").out, "dead inputs"));

    // every column the same: singular without damping
    write_scaled_layer(input, [](Index) { return 1.0f; });
    const io::SafetensorsFile file(input);
    std::vector<float> x = file.read<float>("x");
    const std::vector<float> weight = file.read<float>("weight");
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i / 32 * 32];
    io::write_safetensors(input, {io::tensor_of("weight", {8, 32}, weight), io::tensor_of("x", {60, 32}, x)});
    const Output raised = quantize_layer_in(folder, run + "--damping 0");
    CHECK(raised.code == 1);
    CHECK(contains(raised.err, "gptq: damping was raised to 0.0001"));
    CHECK(quantize_layer_in(folder, run + "--damping 0 --allow-degraded").code == 0);
}

TEST_CASE("programs refuse at once what would fail or change nothing", "[programs]") {
    const Folder folder;
    struct Case {
        std::string program, arguments, message;
    };
    const std::string layer = RESIDUA_QUANTIZE_LAYER, llama = RESIDUA_LLAMA_QUANTIZE,
                      vit = RESIDUA_VIT_QUANTIZE;
    const std::string out = " --output " + (folder / "out");
    for (const Case& c : std::vector<Case>{
             {layer, "--method gptq --format gptq-v2 --bits 5",
              "GPTQ format: bits is 5, expected 2, 3, 4 or 8"},
             {layer, "--method gptq --format gptq-v1 --scale-type bf16", "--scale-type is not f16"},
             {layer, "--method gptq --format compressed-tensors --order activation",
              "--order is activation, expected natural or group"},
             {layer, "--method gptq --output " + (folder / "no/q"), "no' is missing, expected a folder"},
             {layer, "--method qep --alpha 1.5", "alpha is 1.5"},
             {layer, "--method gptq --alpha 0.5", "--alpha is given, expected not to be: it changes nothing"},
             {layer, "--method qep --beta 0.5", "--beta is given"},
             {layer, "--method qep --residual-view quantized", "--residual-view is given"},
             {layer, "--method rtn --damping 0.1", "--damping is given"},
             {layer, "--method gptq --group-size -1 --static-groups", "--static-groups is given"},
             {layer, "--method gptq --format nvfp4 --bits 3", "--bits is given"},
             {layer, "--method gptq --name up" + out, "--name is given"},
             {layer, "--method gptq --overwrite", "--overwrite is given"},
             {layer, "--method gptq --threads 100000", "threads is 100000, expected 1"},
             {llama, "--methods gptq,qep,gptq", "--methods: gptq is given twice"},
             {llama, "--methods gptq --alpha 0.5", "--alpha is given"},
             {llama, "--methods qep --alpha -1", "alpha is -1"},
             {llama, "--methods rtn --refine 2", "--refine is given"},
             {layer, "--format onnx-matmulnbits --bits 3 --group-size 32", "MatMulNBits: bits is 3"},
             {layer, "--format onnx-matmulnbits --group-size 24",
              "the group size is 24, expected a power of two"},
             {llama, "--methods gptq --format gptq-v1", "--format is given"},
             {llama, "--methods gptq --symmetric none --format gptq-v1" + out, "--symmetric is none"},
             {llama, "--methods gptq --rotation-seed 3", "--rotation-seed is given"},
             {llama, "--methods gptq --online-hadamard", "--online-hadamard is given"},
             {llama, "--methods gptq --rotate hadamard --rotation-steps 3", "--rotation-steps is given"},
             {llama, "--methods gptq --activation-clip 0.5", "--activation-clip is given"},
             {llama, "--methods none" + out, "--output is given"},
             {llama, "--methods gptq --plot " + (folder / "no/p.svg"), "no' is missing, expected a folder"},
             {llama, "--methods gptq --threads 100000", "threads is 100000, expected 1"},
             {vit, "--methods gptq,gptq", "--methods: gptq is given twice"},
             {vit, "--methods gptq --activation-clip 0.5", "--activation-clip is given"},
             {vit, "--methods gptq --stream-alpha 0.3", "--stream-alpha: --residual-stream is off"},
             {vit, "--methods gptq --patch-bits 9", "--patch-bits is 9, expected 2 to 8, or 16"},
             {vit, "--methods gptq --overwrite", "--overwrite is given"},
             {vit, "--methods gptq,qep" + out, "--output: --methods is more than one"},
             {vit, "--methods gptq --draws 2" + out, "--output: --draws is 2"},
             {vit, "--methods gptq --draws 2 --calibration-images 0", "--calibration-images is 0"},
             {vit, "--methods gptq --calibration-images 2000", "is 2000, expected at most the 1198"},
             {vit, "--methods gptq --model " + (folder / "no"), "no"},
             {layer, "--method rtn --output ''", "--output is '', expected a value"},
             {llama, "--methods rtn --output ''", "--output is '', expected a value"},
             {vit, "--methods rtn --output ''", "--output is '', expected a value"},
             {llama, "--methods rtn --plot ''", "--plot is '', expected a value"},
             {llama, "--methods rtn --window 1024",
              "the longest window has tokens: 1024, expected at most max_position_embeddings"},
             {llama, "--methods gptq --reduction ordered --segments 1000000000", "--segments is 1000000000"},
             {RESIDUA_INSPECT, "'' ", "file is '', expected a value"}}) {
        CAPTURE(c.program, c.arguments);
        const Output result = run_program(c.program, folder, c.arguments);
        CAPTURE(result.err);
        CHECK(result.code == 2);
        CHECK(result.out.empty());
        CHECK(contains(result.err, c.message));
        CHECK_FALSE(contains(result.err, "windows evaluated"));
    }
    CHECK_FALSE(fs::exists(folder / "out"));
}

TEST_CASE("llama_quantize: a model that cannot be right is no success", "[programs]") {
    const Folder folder;
    const std::string shipped = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama", model = folder / "model";
    copy_files(shipped, model, {"config.json", "calibration.txt", "eval.txt"});
    const std::string run =
        "--window 64 --calibration-windows 2 --eval-windows 1 --no-baseline "
        "--method rtn --model " +
        model;
    const auto with_nan_in = [&](const std::string& name) {
        const io::SafetensorsFile file(shipped + "/model.safetensors");
        std::vector<io::TensorInfo> tensors = file.tensors();
        const auto at = std::ranges::find(tensors, name, &io::TensorInfo::name);
        std::vector<std::byte> bytes;
        if (at != tensors.end()) bytes.assign(at->bytes.begin(), at->bytes.end());
        const std::uint16_t nan = 0x7fc0;  // in bfloat16
        for (std::size_t i = 0; i < bytes.size(); i += sizeof nan) std::memcpy(&bytes[i], &nan, sizeof nan);
        if (at != tensors.end()) at->bytes = bytes;
        io::write_safetensors(model + "/model.safetensors", tensors);
        return llama_quantize(folder, run);
    };
    for (const std::string name : {"model.norm.weight", "model.layers.5.mlp.down_proj.weight"}) {
        const Output refused = with_nan_in(name);
        CHECK(refused.code == 2);
        CHECK(contains(refused.err, "--model: '" + name + "' has NaN or infinity, expected finite weights"));
        CHECK_FALSE(contains(refused.err, "block 1"));
    }
    nlohmann::json config = nlohmann::json::parse(content(model + "/config.json"));
    config["tie_word_embeddings"] = true;
    io::write_json(model + "/config.json", config);
    CHECK(contains(with_nan_in("none").err, "tie_word_embeddings is true, expected false"));
    config["tie_word_embeddings"] = false;
    io::write_json(model + "/config.json", config);
    const Output measured =
        with_nan_in("model.embed_tokens.weight");  // tokens that never occur may be anything
    CHECK(measured.code == 1);
    CHECK(contains(measured.out, "the perplexity is no finite number"));
}

TEST_CASE("programs say what memory they need before they take it", "[programs]") {
    const Folder folder;
    const std::string enough = "--bits 4 --method gptq";
    CHECK(contains(quantize_layer_in(folder, enough).err, "GiB of memory"));
    const std::string limited = "ulimit -v 300000; " + std::string(RESIDUA_QUANTIZE_LAYER);
    std::vector<float> weight(8 * 5000), x(2 * 5000);  // moments of 100 MB each
    io::write_safetensors(folder / "wide.safetensors",
                          {io::tensor_of("weight", {8, 5000}, weight), io::tensor_of("x", {2, 5000}, x)});
    const Output result =
        run_program("(" + limited, folder, enough + " --threads 1 --input " + (folder / "wide.safetensors)"));
    CHECK(result.code == 2);
    CHECK(contains(result.err, "residua: needs about"));
    CHECK(contains(result.err, "GiB available"));
}

TEST_CASE("programs that cannot print fail", "[programs]") {
    const Folder folder;
    for (const std::string& run : {std::string(RESIDUA_QUANTIZE_LAYER) + " --method rtn",
                                   std::string(RESIDUA_QUANTIZE_LAYER) + " --method rtn --json"}) {
        CAPTURE(run);
        const Output result = run_program("(" + run + " >/dev/full)", folder, "");
        CHECK(result.code == 2);
        CHECK(contains(result.err, "cannot write to the standard output: No space left on device"));
    }
}

TEST_CASE("inspect shows every layer that can be shown, and no control characters", "[programs]") {
    const Folder folder;
    const std::string path = folder / "file.safetensors";
    auto layer = QuantizedLayer<IntegerGrid>::of_shape(4, 32, 16, {.scale_type = ScaleType::Float16});
    for (float& zero : layer.zeros) zero = 8;
    const io::GPTQLayer packed = io::pack_gptq(layer);
    auto tensors = packed.tensors("a\x1b[31m\nfine");
    const std::vector<std::int32_t> experts(2 * 4 * 4);
    tensors.push_back(io::tensor_of("experts.qweight", {2, 4, 4}, experts));
    const std::vector<std::int32_t> broken(4 * 4);
    tensors.push_back(io::tensor_of("broken.qweight", {4, 4}, broken));
    const auto config = io::quantization_metadata(io::GPTQConfig::of(layer, io::GPTQVersion::V2).to_json());
    io::write_safetensors(path, tensors, config);

    const Output result = run_program(RESIDUA_INSPECT, folder, path);
    CHECK(result.code == 1);  // for the broken one
    CHECK_FALSE(contains(result.out, "\x1b"));
    CHECK(contains(result.out, "a?[31m?fine: GPTQ v2, 4 x 32, 4 bits"));
    CHECK(contains(result.out, "2 x 4 x 4            experts.qweight"));
    CHECK(contains(result.out, "broken: not shown: residua: "));
    CHECK(run_program("(" + std::string(RESIDUA_INSPECT), folder, path + " >/dev/full)").code == 2);

    tensors.pop_back();
    io::write_safetensors(path, tensors, config);
    CHECK(run_program(RESIDUA_INSPECT, folder, path).code == 0);
    CHECK(contains(run_program(RESIDUA_INSPECT, folder, path + " --output " + (folder / "out")).err,
                   "--output requires --dequantize"));
}
