/// What the Llama runner reads and refuses.

#include <filesystem>
#include <fstream>
#include <llama/cuda/requirements.hpp>
#include <llama/rotation.hpp>

#include "catch.hpp"

using namespace llama;
namespace fs = std::filesystem;

namespace {

struct Folder {
    fs::path path = fs::temp_directory_path() / ("residua_llama_files_" + std::to_string(::getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
    fs::path write(const char* name, const std::string& text) const {
        std::ofstream(path / name, std::ios::binary) << text;
        return path / name;
    }
};

nlohmann::json llama_config() {
    return {{"model_type", "llama"},  {"hidden_size", 64},        {"intermediate_size", 96},
            {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2},
            {"vocab_size", 100},      {"rms_norm_eps", 1e-6},     {"rope_theta", 5e5}};
}

std::string message(const std::function<void()>& f) {
    try {
        f();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "nothing thrown";
}

}  // namespace

TEST_CASE("llama: both spellings of the rotary settings are read", "[llama]") {
    auto json = llama_config();
    CHECK(Config::from_json(json).rotary.base == 5e5);
    CHECK_FALSE(Config::from_json(json).rotary.scaling);
    CHECK(Config::from_json(json).head_size == 16);
    CHECK_FALSE(Config::from_json(json).head_norms);

    const nlohmann::json scaling{{"rope_type", "llama3"},
                                 {"factor", 32.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 8192}};
    json["rope_scaling"] = scaling;
    CHECK(Config::from_json(json).rotary.scaling->factor == 32);
    json.erase("rope_scaling");
    json.erase("rope_theta");
    json["rope_parameters"] = scaling;
    json["rope_parameters"]["rope_theta"] = 1e6;
    CHECK(Config::from_json(json).rotary.base == 1e6);
    CHECK(Config::from_json(json).rotary.scaling->original_positions == 8192);
}

TEST_CASE("llama: a configuration that the runner does not follow is refused by name", "[llama]") {
    const auto with = [](const char* name, const nlohmann::json& value) {
        auto json = llama_config();
        json[name] = value;
        return message([&] { (void)Config::from_json(json); });
    };
    CHECK(with("model_type", "gpt2") ==
          "residua: config.json: model_type is gpt2, expected llama, mistral, qwen2, qwen3, "
          "gemma3_text, mixtral or qwen3_moe");
    CHECK(with("hidden_act", "gelu") == "residua: config.json: hidden_act is gelu, expected silu");
    CHECK(with("num_key_value_heads", 3) ==
          "residua: config.json: num_key_value_heads is 3, expected a divisor of num_attention_heads");
    CHECK(with("num_hidden_layers", -1) ==
          "residua: config.json: num_hidden_layers is -1, expected a whole number from 1 to 16777216");
    for (const char* name : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                             "num_key_value_heads", "vocab_size", "head_dim"}) {
        for (const nlohmann::json& bad : {nlohmann::json(1e300), nlohmann::json(0), nlohmann::json("8"),
                                          nlohmann::json(std::uint64_t(1) << 63), nlohmann::json(-5)}) {
            CAPTURE(name, bad.dump());
            CHECK(with(name, bad).starts_with(std::string("residua: config.json: ") + name + " is " +
                                              bad.dump()));
        }
    }
    CHECK(with("rms_norm_eps", -1) ==
          "residua: config.json: rms_norm_eps is -1, expected a number above 0, at most 1");
    CHECK(with("rope_theta", 0).starts_with("residua: config.json: rope_theta is 0"));
    CHECK(with("rope_theta", "big").starts_with("residua: config.json: rope_theta is \"big\""));
    CHECK(with("rope_scaling", {{"rope_type", "llama3"}})
              .starts_with("residua: config.json: factor is missing, expected a number above 0"));
    CHECK(with("rope_scaling", {{"rope_type", "yarn"}}) ==
          "residua: config.json: rope_type is yarn, expected default, linear or llama3");
    CHECK(with("quantization_config", {{"quant_method", "awq"}}) ==
          "residua: config.json: quant_method is awq, expected gptq, compressed-tensors or bitsandbytes");
}

TEST_CASE("llama: which blocks have experts and sliding windows", "[llama]") {
    auto json = llama_config();
    json["num_hidden_layers"] = 6;
    json["sliding_window"] = 16;
    const auto sliding = [&](const char* type) {
        json["model_type"] = type;
        const Config c = Config::from_json(json);
        std::string blocks;
        for (Index i = 0; i < c.blocks; ++i) blocks += c.is_sliding(i) ? 's' : '.';
        return blocks;
    };
    CHECK(sliding("llama") == "......");
    CHECK(sliding("mistral") == "ssssss");
    CHECK(sliding("qwen2") == "......");
    json["use_sliding_window"] = true;
    json["max_window_layers"] = 4;
    CHECK(sliding("qwen2") == "....ss");
    CHECK(sliding("gemma3_text") == "sssss.");
    json["layer_types"] = {"full_attention",    "sliding_attention", "full_attention",
                           "sliding_attention", "full_attention",    "full_attention"};
    CHECK(sliding("qwen3") == ".s.s..");
    json["layer_types"].erase(0);
    CHECK(message([&] { (void)Config::from_json(json); }) ==
          "residua: config.json: entries of layer_types: 5, expected 6, one for each block");

    json = llama_config();
    json["model_type"] = "qwen3_moe";
    json["num_experts"] = 4;
    json["num_experts_per_tok"] = 2;
    json["moe_intermediate_size"] = 32;
    json["mlp_only_layers"] = {1};
    const Config c = Config::from_json(json);
    CHECK(c.has_experts(0));
    CHECK_FALSE(c.has_experts(1));
    CHECK(layers_of(c, 0).size() == 4 + 3 * 4);
    CHECK(layers_of(c, 0).back().name == "mlp.experts.3.down_proj");
    CHECK(layers_of(c, 1).size() == 7);
    json["num_experts_per_tok"] = 5;
    CHECK(message([&] { (void)Config::from_json(json); }) ==
          "residua: config.json: num_experts_per_tok is 5, expected a whole number from 1 to 4");
}

TEST_CASE("llama: windows are read from bytes, lines and tensors", "[llama]") {
    const Folder folder;
    const auto text = folder.write("text.txt", "abcdefgh\xff");
    CHECK(read_windows(text, 256, 3, 0) == Windows{{'a', 'b', 'c'}, {'d', 'e', 'f'}, {'g', 'h', 255}});
    CHECK(read_windows(text, 256, 4, 1) == Windows{{'a', 'b', 'c', 'd'}});

    const auto lines = folder.write("ids.txt", "1 2 3\n\n 4,\t5\r\n");
    CHECK(read_windows(lines, 1000, 512, 0) == Windows{{1, 2, 3}, {4, 5}});
    CHECK(read_windows(lines, 1000, 2, 0) == Windows{{1, 2}, {4, 5}});
    const auto long_line = folder.write("long.txt", "1 2 3 4 5 6 7\n8 9\n");
    CHECK(read_windows(long_line, 1000, 3, 0) == Windows{{1, 2, 3}, {4, 5, 6}, {8, 9}});

    const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7};
    residua::io::write_safetensors(folder.path / "flat.safetensors",
                                   {residua::io::tensor_of("tokens", {7}, tokens)});
    CHECK(read_windows(folder.path / "flat.safetensors", 1000, 3, 0) == Windows{{1, 2, 3}, {4, 5, 6}});
    residua::io::write_safetensors(folder.path / "matrix.safetensors",
                                   {residua::io::tensor_of("tokens", {1, 7}, tokens)});
    CHECK(read_windows(folder.path / "matrix.safetensors", 1000, 3, 0) == Windows{tokens});
}

TEST_CASE("llama: windows that cannot be used are refused", "[llama]") {
    const Folder folder;
    const auto refusal = [&](const std::string& text, Index vocabulary) {
        const auto path = folder.write("tokens.txt", text);
        const std::string found = message([&] { (void)read_windows(path, vocabulary, 8, 0); });
        const std::size_t name = found.find("tokens.txt");
        REQUIRE(name != std::string::npos);
        return found.substr(name);
    };
    CHECK(refusal("1 2 99\n", 99) == "tokens.txt: a token is 99, expected 0 to 98 (the vocabulary)");
    CHECK(refusal("1 -2\n", 99) == "tokens.txt: a token is -2, expected 0 to 98 (the vocabulary)");
    CHECK(refusal("1 2\n3 x4\n", 99) == "tokens.txt, line 2: a token is x4, expected a number");
    CHECK(refusal("1\n", 99) == "tokens.txt: a window has tokens: 1, expected at least 2");
    CHECK(refusal("", 99) == "tokens.txt: windows of 8 tokens: 0, expected at least 1");
    CHECK(refusal("short", 256) == "tokens.txt: windows of 8 tokens: 0, expected at least 1");
    CHECK_THROWS(read_windows(folder.path / "missing.txt", 256, 8, 0));
}

TEST_CASE("llama: a rotation from a file must be one", "[llama]") {
    const Folder folder;
    Config c;
    c.hidden = 2;
    c.head_size = 2;
    c.blocks = 1;
    const auto refusal = [&](const std::vector<float>& r1, const std::vector<float>& r2) {
        residua::io::write_safetensors(folder.path / "r.safetensors",
                                       {residua::io::tensor_of("R1", {2, 2}, r1),
                                        residua::io::tensor_of("model.layers.0.self_attn.R2", {2, 2}, r2)});
        return message([&] { (void)Rotations::read(folder.path / "r.safetensors", c); });
    };
    const std::vector<float> turn{0.6f, 0.8f, -0.8f, 0.6f}, stretch{2, 0, 0, 1}, broken{NAN, 0, 0, 1};
    CHECK(refusal(turn, turn) == "nothing thrown");
    CHECK(refusal(stretch, turn) ==
          "residua: R1: |Q Q' - I| is 3, expected below 1e-3: an orthogonal matrix");
    CHECK(refusal(turn, stretch).starts_with("residua: model.layers.0.self_attn.R2: |Q Q' - I| is 3"));
    CHECK_FALSE(refusal(broken, turn) == "nothing thrown");
}

TEST_CASE("llama: the device refuses what its kernels do not compute", "[llama]") {
    nlohmann::json json = llama_config();
    json["hidden_size"] = json["intermediate_size"] = 64;
    json["head_dim"] = 16;
    const auto refusal = [&](Index positions) {
        return message([&] { llama::cuda::require_supported(Config::from_json(json), positions); });
    };
    for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
        json["model_type"] = type;
        CHECK(refusal(1000) == "nothing thrown");
    }
    json["model_type"] = "mistral";
    json["sliding_window"] = 512;
    CHECK(refusal(512) == "nothing thrown");
    CHECK(refusal(513) ==
          "residua: --device cuda: tokens of a window are 513, expected at most 512, sliding_window of "
          "config.json");
    json["head_dim"] = 12;
    CHECK(refusal(1) == "residua: --device cuda: head_dim is 12, expected a multiple of 8");
    json["head_dim"] = 264;
    CHECK(refusal(1) == "residua: --device cuda: head_dim is 264, expected at most 256");
    json["num_experts"] = 4;
    json["num_experts_per_tok"] = 2;
    json["moe_intermediate_size"] = 32;
    for (const std::string type : {"gemma3_text", "mixtral", "qwen3_moe"}) {
        json["model_type"] = type;
        CHECK(refusal(1) ==
              "residua: --device cuda: model_type is " + type + ", expected llama, mistral, qwen2 or qwen3");
    }
}
