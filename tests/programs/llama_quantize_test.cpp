/// llama_quantize from outside: what it prints, writes, goes on with and refuses.

#include <cstring>
#include <fstream>
#include <llama/perplexity.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "examples/random_llama.hpp"
#include "programs/program.hpp"

using namespace residua;

namespace {

const std::string tiny = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";

/// Little enough to calibrate on for a program that is built without optimization.
const std::string small = " --window 64 --calibration-windows 6 --eval-windows 3 ";

std::vector<std::string> files_of(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

/// A folder with the shipped model's first block alone: a sixth of the work, where all that matters is whether runs agree.
std::string first_block_of_tiny(const Folder& folder) {
    const std::string model = folder / "first_block";
    copy_files(tiny, model, {"calibration.txt", "eval.txt"});
    auto config = nlohmann::json::parse(content(tiny + "/config.json"));
    config["num_hidden_layers"] = 1;
    std::ofstream(model + "/config.json") << config;
    const io::SafetensorsFile source(tiny + "/model.safetensors");
    auto tensors = source.tensors();
    std::erase_if(tensors, [](const auto& tensor) {
        return tensor.name.starts_with("model.layers.") && !tensor.name.starts_with("model.layers.0.");
    });
    io::write_safetensors(model + "/model.safetensors", tensors);
    return model;
}

/// The model in `output` has the perplexity that the run which wrote it has measured, which is returned.
double check_measured(const Folder& folder, const Output& made, const std::string& output) {
    INFO(made.err);
    REQUIRE(made.code == 0);
    const Output read =
        llama_quantize(folder, small + "--method none --json --model " + output + " --calibration " + tiny +
                                   "/calibration.txt --eval " + tiny + "/eval.txt");
    INFO(read.err);
    REQUIRE(read.code == 0);
    const double measured = nlohmann::json::parse(made.out)[1]["perplexity"];
    CHECK(nlohmann::json::parse(read.out)[0]["perplexity"].get<double>() == Approx(measured).epsilon(1e-5));
    return measured;
}

}  // namespace

TEST_CASE("llama_quantize: every method is measured, the better ones are better", "[programs]") {
    const Folder folder;
    // more tokens than a layer has inputs, below which corrections of the inputs and the stream fit chance
    const Output result = llama_quantize(
        folder, std::string("--window 64 --calibration-windows 32 --eval-windows 3 --bits 3 ") +
                    "--methods rtn,gptq,rescomp,qep --json --plot " + (folder / "errors.svg"));
    INFO(result.err);
    REQUIRE(result.code == 0);
    const auto rows = nlohmann::json::parse(result.out);
    REQUIRE(rows.size() == 5);
    std::map<std::string, double> perplexity;
    for (const auto& row : rows) {
        CHECK(row["status"] == "success");
        CHECK(row["seconds"].is_number());
        perplexity[row["method"]] = row["perplexity"];
        if (row["method"] != "full precision") CHECK(row["layers"].size() == 42);
    }
    CHECK(perplexity["full precision"] < perplexity["qep"]);
    CHECK(perplexity["qep"] < perplexity["rtn"]);
    CHECK(perplexity["gptq"] < perplexity["rtn"]);
    for (const auto& layer : rows[1]["layers"]) CHECK(layer["output_error"].get<double>() > 0);

    const std::string svg = content(folder / "errors.svg");
    std::size_t lines = 0;
    for (std::size_t at = 0; (at = svg.find("<polyline", at)) != std::string::npos; ++at) ++lines;
    CHECK(lines == 4);
    CHECK(contains(svg, ">qep</text>"));
}

TEST_CASE("llama_quantize: rounding looks at no calibration token", "[programs]") {
    const Folder folder;
    const auto rows_of = [&](const std::string& calibration) {
        const Output result = llama_quantize(
            folder, calibration + " --window 64 --eval-windows 2 --bits 3 --method rtn --json");
        INFO(result.err);
        REQUIRE(result.code == 0);
        return nlohmann::json::parse(result.out);
    };
    const auto few = rows_of("--calibration-windows 1"), more = rows_of("--calibration-windows 8");
    CHECK(few[1]["perplexity"] == more[1]["perplexity"]);
    REQUIRE(few[1]["layers"].size() == 42);
    for (const auto& layer : more[1]["layers"]) CHECK(layer["output_error"].is_null());
}

TEST_CASE("llama_quantize: the output is the model that was measured", "[programs]") {
    const Folder folder;
    const auto [rotation, format] = GENERATE(std::pair("none", "gptq-v1"), std::pair("hadamard", "gptq-v2"),
                                             std::pair("hadamard --online-hadamard", "gptq-v2"),
                                             std::pair("learned --rotation-steps 2", "gptq-v2"));
    const bool is_rotated = std::string(rotation) != "none";
    const bool is_online = contains(rotation, "online");
    const std::string output = folder / "model";
    const Output made = llama_quantize(
        folder, small + "--method gptq --bits 4 --symmetric full --order activation --residual-stream " +
                    "--final-norm --rotate " + rotation + " --format " + format + " --json --output " +
                    output);
    check_measured(folder, made, output);

    const auto config = nlohmann::json::parse(content(output + "/config.json"));
    CHECK(config["quantization_config"]["checkpoint_format"] ==
          (std::string(format) == "gptq-v1" ? "gptq" : "gptq_v2"));
    CHECK(config["quantization_config"]["desc_act"] == true);
    CHECK(config["quantization_config"]["bits"] == 4);
    CHECK(config.contains("residua_rotation") == is_rotated);
    // what engines know by name they can run
    CHECK(config["model_type"] == (is_online ? "residua_online_hadamard_llama" : "llama"));
    CHECK((config["architectures"][0] == "LlamaForCausalLM") != is_online);
    const io::SafetensorsCheckpoint checkpoint(output);
    CHECK(checkpoint.info("model.layers.5.mlp.down_proj.qweight").shape == std::vector<Index>{96, 256});
    CHECK(checkpoint.info("model.embed_tokens.weight").dtype ==
          (is_rotated ? io::DType::F32 : io::DType::BF16));
    CHECK(checkpoint.info("model.norm.weight").dtype == io::DType::F32);  // it is not what it was
    CHECK_FALSE(checkpoint.contains("model.layers.0.mlp.down_proj.weight"));
}

TEST_CASE("llama_quantize: a checkpoint of every format is the model that was measured", "[programs]") {
    const Folder folder;
    struct Case {
        const char* format;
        const char* options;
        const char* method;
        const char* tensor;
    };
    const Case c =
        GENERATE(Case{"compressed-tensors", "--symmetric none", "compressed-tensors", ".weight_zero_point"},
                 Case{"compressed-tensors", "--bits 3 --group-size -1 --scale-type bf16",
                      "compressed-tensors", ".weight_shape"},
                 Case{"nvfp4", "", "compressed-tensors", ".weight_global_scale"},
                 Case{"mxfp4", "--clip", "compressed-tensors", ".weight_packed"},
                 Case{"nf4", "", "bitsandbytes", ".weight.quant_state.bitsandbytes__nf4"});
    CAPTURE(c.format, c.options);
    const std::string output = folder / "model";
    const std::string command =
        small + "--method rtn --json --format " + c.format + " " + c.options + " --output " + output;
    const Output made = llama_quantize(folder, command);
    const double measured = check_measured(folder, made, output);

    const auto config = nlohmann::json::parse(content(output + "/config.json"));
    CHECK(config["quantization_config"]["quant_method"] == c.method);
    CHECK(io::SafetensorsCheckpoint(output).contains(std::string("model.layers.5.mlp.down_proj") + c.tensor));
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
        CHECK(content(output + "/" + name) == content(tiny + "/" + name));
    CHECK_FALSE(fs::exists(output + "/quantize_config.json"));

    // shards are read again, and the rest is made anew
    const std::string shard = output + "/model-00003-of-00007.safetensors", before = content(shard);
    fs::remove(shard);
    const Output resumed = llama_quantize(folder, command + " --resume");
    INFO(resumed.err);
    REQUIRE(resumed.code == 0);
    CHECK(content(shard) == before);
    CHECK(nlohmann::json::parse(resumed.out)[1]["perplexity"].get<double>() ==
          Approx(measured).epsilon(1e-5));
}

namespace {

/// A random mixture of experts as a checkpoint, with a text of token ids beside it.
void write_mixture(const std::string& path) {
    using namespace llama;
    const Model model = random_model(Kind::Experts);
    const Config& c = model.config;
    std::vector<io::TensorInfo> tensors;
    const auto add = [&](const std::string& name, const auto& matrix) {
        std::vector<Index> shape{matrix.cols()};
        if (matrix.rows() > 1) shape.insert(shape.begin(), matrix.rows());
        tensors.push_back(
            io::tensor_of(name, std::move(shape), std::span(matrix.data(), std::size_t(matrix.size()))));
    };
    add("model.embed_tokens.weight", model.embedding);
    add("model.norm.weight", model.norm);
    add("lm_head.weight", model.head);
    Rows router = model.blocks[0].router.weight;
    const float factors[] = {1, -1, 0.5f, -0.5f, 0};  // none of the tokens goes to the last expert
    for (Index e = 1; e < router.rows(); ++e) router.row(e) = factors[e] * router.row(0);
    add("model.layers.0.mlp.gate.weight", router);
    for (Index i = 0; i < c.blocks; ++i) {
        const Block& block = model.blocks[std::size_t(i)];
        for (const NormSpec& norm : norms_of(c))
            add(block_prefix(i) + norm.name + ".weight", block.*norm.norm);
        for (const BlockLayer& layer : block.layers)
            add(block_prefix(i) + layer.spec.name + ".weight", layer.linear.weight);
    }
    fs::create_directories(path);
    io::write_safetensors(path + "/model.safetensors", std::move(tensors));
    io::write_json(path + "/config.json", {{"model_type", "qwen3_moe"},
                                           {"hidden_size", c.hidden},
                                           {"intermediate_size", c.intermediate},
                                           {"num_hidden_layers", c.blocks},
                                           {"num_attention_heads", c.heads},
                                           {"num_key_value_heads", c.key_value_heads},
                                           {"head_dim", c.head_size},
                                           {"vocab_size", c.vocabulary},
                                           {"num_experts", c.experts.count},
                                           {"num_experts_per_tok", c.experts.per_token},
                                           {"moe_intermediate_size", c.experts.intermediate},
                                           {"norm_topk_prob", false},
                                           {"mlp_only_layers", {1}}});
    std::ofstream ids(path + "/ids.txt");
    for (int i = 0; i < 120; ++i) ids << i * i % 31 << (i % 12 == 11 ? '\n' : ' ');
}

}  // namespace

TEST_CASE("llama_quantize: experts without tokens are told by name, and end the program with 1",
          "[programs]") {
    const Folder folder;
    const std::string model = folder / "mixture", output = folder / "quantized";
    write_mixture(model);
    const std::string text = " --calibration " + model + "/ids.txt --eval " + model + "/ids.txt --json ";
    const std::string command =
        "--model " + model + text + "--method gptq --group-size 8 --no-baseline --output " + output;
    const std::string told =
        "model.layers.0.mlp.experts.4.down_proj: no calibration token reached this expert";
    const Output made = llama_quantize(folder, command);
    INFO(made.err);
    CHECK(made.code == 1);
    CHECK(contains(made.err, told));
    CHECK_FALSE(contains(made.err, "experts.0.gate_proj"));  // it had more tokens than inputs
    const auto row = nlohmann::json::parse(made.out)[0];
    CHECK(row["status"] == "success");
    CHECK(row["layers"].size() == 4 + 15 + 7);

    const Output resumed = llama_quantize(folder, command + " --resume --allow-degraded");
    CHECK(resumed.code == 0);
    CHECK(contains(resumed.err, told));

    const Output read = llama_quantize(folder, "--model " + output + text + "--method none");
    INFO(read.err);
    REQUIRE(read.code == 0);
    CHECK(nlohmann::json::parse(read.out)[0]["perplexity"].get<double>() ==
          Approx(row["perplexity"].get<double>()).epsilon(1e-5));
}

TEST_CASE("llama_quantize: a plain text is what its tokens are", "[programs]") {
    if (std::system("python3 -c 'import tokenizers' 2> /dev/null") != 0) {
        WARN("skipped: no Python package tokenizers");
        return;
    }
    const Folder folder;
    const std::string model = folder / "it's a model", ids = model + "/ids.txt";
    write_mixture(model);
    const auto perplexity = [&](const std::string& text) {
        const Output result =
            llama_quantize(folder, "--model \"" + model + "\" --calibration \"" + ids + "\" --eval \"" +
                                       text + "\" --method none --window 12 --json");
        INFO(result.err);
        REQUIRE(result.code == 0);
        return nlohmann::json::parse(result.out).at(0).at("perplexity").get<double>();
    };
    const std::string text = model + "/text.txt";
    std::ofstream(text) << "zero";
    const Output refused = llama_quantize(folder, "--model \"" + model + "\" --calibration \"" + text +
                                                      "\" --eval \"" + ids + "\" --method none");
    CHECK(refused.code == 2);
    CHECK(contains(refused.err, "tokenizer.json of the model is missing"));

    // word w<i> is token i
    nlohmann::json words;
    for (int i = 0; i < 31; ++i) words["w" + std::to_string(i)] = i;
    io::write_json(model + "/tokenizer.json",
                   {{"version", "1.0"},
                    {"added_tokens", nlohmann::json::array()},
                    {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
                    {"model", {{"type", "WordLevel"}, {"vocab", words}, {"unk_token", "w0"}}}});
    std::ifstream numbers(ids);
    std::ofstream out(text);
    for (std::string number; numbers >> number;) out << "w" << number << "\n";
    out.close();
    CHECK(perplexity(text) == perplexity(ids));
}

namespace {

/// A tensor of a GGUF file in float, its rows as they stand there.
std::vector<float> values_of(const io::GGUFFile& file, const std::string& name) {
    const io::GGUFTensor& tensor = file.tensor(name);
    std::vector<float> values;
    const auto copy = [&]<class T>(T) {
        std::vector<T> stored(tensor.bytes.size() / sizeof(T));
        std::memcpy(static_cast<void*>(stored.data()), tensor.bytes.data(), tensor.bytes.size());
        for (const T value : stored) values.push_back(float(value));
    };
    if (tensor.type == io::GGMLType::F32) copy(float());
    if (tensor.type == io::GGMLType::F16) copy(float16(0.0f));
    if (tensor.type == io::GGMLType::Q4_K) {
        const auto matrix = file.layer<KQuantGrid<32>>(name).dequantize();
        values.assign(matrix.data(), matrix.data() + matrix.size());
    }
    return values;
}

/// Rows of q and k in the order of Hugging Face: the even ones of each head, then the odd ones.
std::vector<float> halves_apart(const std::vector<float>& values, std::size_t cols, std::size_t head_size) {
    std::vector<float> result;
    for (std::size_t r = 0; r < values.size() / cols; ++r) {
        const std::size_t within = r % head_size;
        const std::size_t from = r - within + 2 * within % head_size + 2 * within / head_size;
        result.insert(result.end(), values.begin() + std::ptrdiff_t(from * cols),
                      values.begin() + std::ptrdiff_t((from + 1) * cols));
    }
    return result;
}

}  // namespace

TEST_CASE("llama_quantize: a GGUF file is the model that was measured", "[programs]") {
    const Folder folder;
    const std::string output = folder / "model.gguf", copy = folder / "copy";
    const Output made =
        llama_quantize(folder, small + "--method gptq --format gguf-q4_k --json --output " + output);
    INFO(made.err);
    REQUIRE(made.code == 0);
    const io::GGUFFile file(output);
    CHECK(file.tensors().size() == 3 + 9 * 6);

    // the same tensors as a checkpoint of Hugging Face's layout, with its names
    const io::SafetensorsFile original(tiny + "/model.safetensors");
    std::vector<std::pair<std::string, std::string>> names = {
        {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
    for (int i = 0; i < 6; ++i) {
        const std::string here = "model.layers." + std::to_string(i) + ".",
                          there = "blk." + std::to_string(i) + ".";
        for (const auto& [ours, theirs] :
             std::map<std::string, std::string>{{"input_layernorm", "attn_norm"},
                                                {"post_attention_layernorm", "ffn_norm"},
                                                {"self_attn.q_proj", "attn_q"},
                                                {"self_attn.k_proj", "attn_k"},
                                                {"self_attn.v_proj", "attn_v"},
                                                {"self_attn.o_proj", "attn_output"},
                                                {"mlp.gate_proj", "ffn_gate"},
                                                {"mlp.up_proj", "ffn_up"},
                                                {"mlp.down_proj", "ffn_down"}})
            names.emplace_back(here + ours, there + theirs);
    }
    std::vector<std::vector<float>> kept;
    std::vector<io::TensorInfo> tensors;
    kept.reserve(names.size());
    for (const auto& [ours, theirs] : names) {
        const bool rotates = theirs.ends_with("attn_q") || theirs.ends_with("attn_k");
        std::vector<float> values = values_of(file, theirs + ".weight");
        CHECK(file.tensor(theirs + ".weight").shape == original.info(ours + ".weight").shape);
        kept.push_back(rotates ? halves_apart(values, 256, 64) : std::move(values));
        tensors.push_back(
            io::tensor_of(ours + ".weight", original.info(ours + ".weight").shape, kept.back()));
    }
    copy_files(tiny, copy, {"config.json", "calibration.txt", "eval.txt"});
    io::write_safetensors(copy + "/model.safetensors", std::move(tensors));
    const Output read = llama_quantize(folder, small + "--method none --json --model " + copy);
    INFO(read.err);
    REQUIRE(read.code == 0);
    const double measured = nlohmann::json::parse(made.out)[1]["perplexity"];
    CHECK(nlohmann::json::parse(read.out)[0]["perplexity"].get<double>() == Approx(measured).epsilon(1e-5));

    const std::string bytes = content(output);
    for (const char* text : {"general.architecture", "llama.rope.freq_base", "tokenizer.ggml.tokens"})
        CHECK(contains(bytes, text));
}

TEST_CASE("llama_quantize: a killed run goes on to the same bytes", "[programs]") {
    const Folder folder;
    const std::string whole = folder / "whole", killed = folder / "killed";
    const std::string arguments = small + "--method qep --bits 2 --symmetric none --output ";
    REQUIRE(llama_quantize(folder, arguments + whole).code == 0);
    REQUIRE(files_of(whole).size() ==
            12);  // 6 blocks, the rest, index, two configurations, two of a tokenizer

    // what a run leaves that was killed in the third block
    copy_files(whole, killed, {"model-00001-of-00007.safetensors", "model-00002-of-00007.safetensors"});

    const Output refused = llama_quantize(folder, arguments + killed);
    CHECK(refused.code == 2);
    CHECK(contains(refused.err, "exists, expected --resume, --overwrite, or another folder"));

    const Output other = llama_quantize(folder, arguments + killed + " --resume --damping 0.1");
    CHECK(other.code == 2);
    CHECK(contains(other.err, "was made with"));

    REQUIRE(llama_quantize(folder, arguments + killed + " --resume").code == 0);
    CHECK(files_of(killed) == files_of(whole));
    for (const std::string& name : files_of(whole)) {
        INFO(name);
        CHECK(content(killed + "/" + name) == content(whole + "/" + name));
    }
}

TEST_CASE("llama_quantize: what cannot be done is refused with the reason", "[programs]") {
    const Folder folder;
    const auto refusal = [&](const std::string& arguments) {
        const Output result = llama_quantize(folder, small + arguments);
        CHECK(result.code != 0);
        CHECK(result.out.empty());
        return result.err;
    };
    CHECK(contains(refusal("--model " + (folder / "nowhere")), "nowhere"));
    CHECK(contains(refusal("--calibration " + (folder / "nothing.txt")), "nothing.txt"));
    CHECK(contains(refusal("--bits 9"), "IntegerGrid: bits is 9, expected 2 to 8"));
    CHECK(contains(refusal("--bits 5 --method gptq --output " + (folder / "five")), "bits is 5"));
    CHECK(contains(refusal("--method best"), "best"));
    CHECK(contains(refusal("--activation-bits 1"), "--activation-bits is 1, expected 2 to 8, or 16"));
    CHECK(contains(refusal("--resume"), "--resume: --output is missing"));
    CHECK(contains(refusal("--format gguf-q4_k --method gptaq"),
                   "--method is gptaq, expected rtn, gptq or qep"));
    CHECK(contains(refusal("--format gguf-f16 --method gptq"),
                   "--method is gptq, expected rtn, for nothing is solved"));
    CHECK(contains(refusal("--format gguf-q6_k --group-size 128"), "group_size is 128, expected 16"));
    CHECK(contains(refusal("--format gguf-q6_k --rotate hadamard --online-hadamard"),
                   "llama.cpp has no online transforms"));
    CHECK(contains(refusal("--output " + (folder / "o") + " --scale-type f32"), "--scale-type is"));
    CHECK(contains(refusal("--rotate " + (folder / "r.safetensors")), "r.safetensors"));
    CHECK(contains(refusal("--method rtn --residual-stream"), "--residual-stream: --methods is rtn"));
    CHECK(contains(refusal("--method gptq --stream-alpha 1"), "--stream-alpha: --residual-stream is off"));
    CHECK(contains(refusal("--method qep --stream-alpha 2"), "stream_alpha is 2, expected in [0, 1]"));
    CHECK(contains(refusal("--no-clip --scale-search loss"), "--scale-search: --clip is off"));
    CHECK(contains(refusal("--clip --scale-survivors 4"), "--scale-survivors: --scale-search is norm"));
    CHECK(contains(refusal("--method none --final-norm"), "--final-norm: --methods is none"));
    CHECK(contains(refusal("--method none --best"), "--best: --methods is none"));
    CHECK(
        contains(refusal("--format nf4 --group-size 48 --method gptq"), "the group size is 48, expected 64"));
    CHECK(contains(refusal("--format mxfp4 --method gptaq"), "--method is gptaq, expected rtn, gptq or qep"));
    CHECK(contains(
        refusal("--format compressed-tensors --order activation --method gptq --output " + (folder / "o")),
        "natural or group, or --static-groups"));
    CHECK(contains(
        refusal("--format compressed-tensors --group-size 100 --method gptq --output " + (folder / "o")),
        "inputs of model.layers.0.self_attn.q_proj are 256, expected a multiple of the group size, 100"));
    CHECK_FALSE(fs::exists(folder / "five"));
}

TEST_CASE("llama_quantize: --best is what it stands for, and gives way to what stands beside it",
          "[programs]") {
    const Folder folder;
    const std::string model = first_block_of_tiny(folder);
    const auto perplexity = [&](const std::string& arguments) {
        const Output result = llama_quantize(
            folder, small + "--model " + model + " --no-baseline --json --bits 3 " + arguments);
        INFO(result.err);
        REQUIRE(result.code == 0);
        return nlohmann::json::parse(result.out).at(0).at("perplexity").get<double>();
    };
    const double best = perplexity("--best");
    CHECK(best == perplexity("--method qep --scale-search loss --residual-stream --final-norm --refine 2"));
    const double without = perplexity("--best --no-residual-stream --no-final-norm --refine 0 --no-clip");
    CHECK(without == perplexity("--method qep --no-residual-stream"));
    CHECK(best != without);
}

TEST_CASE("llama_quantize: a layer that cannot be solved is reported, the others are not lost",
          "[programs]") {
    const Folder folder;
    const std::string broken = folder / "broken";
    copy_files(tiny, broken, {"config.json", "calibration.txt", "eval.txt"});
    const io::SafetensorsFile source(tiny + "/model.safetensors");
    const std::string norm = "model.layers.1.post_attention_layernorm.weight";
    std::vector<float> gains = source.read<float>(norm);
    std::fill(gains.begin(), gains.begin() + 60, 0.0f);  // of 256: more dead inputs than are allowed
    auto tensors = source.tensors();
    for (auto& tensor : tensors)
        if (tensor.name == norm) tensor = io::tensor_of(norm, tensor.shape, gains);
    io::write_safetensors(broken + "/model.safetensors", tensors);

    const Output result = llama_quantize(folder, small + "--methods gptq,rtn --json --model " + broken);
    CHECK(result.code == 1);
    const auto rows = nlohmann::json::parse(result.out);
    REQUIRE(rows.size() == 3);
    CHECK(contains(rows[1]["status"], "model.layers.1.mlp.gate_proj: dead inputs"));
    CHECK(rows[1]["perplexity"].is_null());
    CHECK(rows[2]["status"] == "success");
}
