#include "gguf_output.hpp"

#include <deque>
#include <map>

using namespace residua;
using io::GGUFEntry;

namespace {

/// Every type of a file by the number that general.file_type has for it, 0 where there is none.
std::uint32_t file_type_of(io::GGMLType type) {
    using enum io::GGMLType;
    switch (type) {
        case F16:
            return 1;
        case Q4_0:
            return 2;
        case Q4_1:
            return 3;
        case Q8_0:
            return 7;
        case Q5_0:
            return 8;
        case Q5_1:
            return 9;
        case Q2_K:
            return 10;
        case Q3_K:
            return 11;
        case Q4_K:
            return 14;
        case Q5_K:
            return 16;
        case Q6_K:
            return 18;
        case IQ4_NL:
            return 25;
        case IQ4_XS:
            return 30;
        case MXFP4:
            return 38;
        default:
            return 0;
    }
}

/// The characters of the bytes in GPT-2's alphabet, in UTF-8: printable ones are themselves, the others follow behind
/// the first 256 code points.
std::vector<std::string> byte_alphabet() {
    std::vector<std::string> alphabet;
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
        const bool printable =
            (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
        const int point = printable ? byte : next++;
        std::string character;
        if (point < 0x80) {
            character += static_cast<char>(point);
        } else {
            character += static_cast<char>(0xc0 | point >> 6);
            character += static_cast<char>(0x80 | (point & 0x3f));
        }
        alphabet.push_back(character);
    }
    return alphabet;
}

constexpr std::int32_t normal_token = 1;
constexpr std::int32_t control_token = 3;
constexpr std::int32_t user_token = 4;
constexpr std::int32_t unused_token = 5;

/// The first of one id or several.
void add_id(std::vector<GGUFEntry>& metadata, const std::string& key, const nlohmann::json& config,
            const char* name) {
    const auto at = config.find(name);
    if (at == config.end()) return;
    const nlohmann::json id = at->is_array() && !at->empty() ? at->front() : *at;
    if (id.is_number_unsigned()) metadata.push_back({key, id.get<std::uint32_t>()});
}

void add_tokens(std::vector<GGUFEntry>& metadata, std::vector<std::string> tokens,
                std::vector<std::int32_t> types, std::vector<std::string> merges, const char* splits) {
    metadata.push_back({"tokenizer.ggml.model", std::string("gpt2")});
    metadata.push_back({"tokenizer.ggml.pre", std::string(splits)});
    metadata.push_back({"tokenizer.ggml.tokens", std::move(tokens)});
    metadata.push_back({"tokenizer.ggml.token_type", std::move(types)});
    metadata.push_back({"tokenizer.ggml.merges", std::move(merges)});
}

/// tokenizer.json of a byte-level BPE.
void add_bpe(std::vector<GGUFEntry>& metadata, const nlohmann::json& json, const llama::Config& config,
             const std::string& model_type) {
    const std::string kind = json.at("model").value("type", "");
    const bool is_byte_level = json.dump().find("\"ByteLevel\"") != std::string::npos;
    require(kind == "BPE" && is_byte_level, "tokenizer.json: the model is", kind, "a byte-level BPE");
    const auto size = static_cast<std::size_t>(config.vocabulary);
    std::vector<std::string> tokens(size), merges;
    std::vector<std::int32_t> types(size, unused_token);
    const auto set = [&](std::size_t id, const std::string& text, std::int32_t type) {
        require(id < size, "tokenizer.json: an id is", id, "below vocab_size of config.json");
        tokens[id] = text;
        types[id] = type;
    };
    for (const auto& [text, id] : json.at("model").at("vocab").items())
        set(id.get<std::size_t>(), text, normal_token);
    for (const nlohmann::json& added : json.value("added_tokens", nlohmann::json::array()))
        set(added.at("id").get<std::size_t>(), added.at("content").get<std::string>(),
            added.value("special", false) ? control_token : user_token);
    for (std::size_t id = 0; id < size; ++id)
        if (types[id] == unused_token) tokens[id] = "[PAD" + std::to_string(id) + "]";
    for (const nlohmann::json& merge : json.at("model").at("merges")) {
        merges.push_back(merge.is_array()
                             ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                             : merge.get<std::string>());
    }
    if (merges.empty()) {  // a token for each byte
        add_tokens(metadata, std::move(tokens), std::move(types), {}, "gpt-2");
        metadata.push_back({"tokenizer.ggml.add_bos_token", false});
        return;
    }
    add_tokens(metadata, std::move(tokens), std::move(types), std::move(merges),
               model_type.starts_with("qwen") ? "qwen2" : "llama-bpe");
}

/// llama.cpp's name of a tensor of a block that checkpoints call `name`.
std::string gguf_name(Index block, const std::string& name) {
    static const std::map<std::string, std::string> names{{"self_attn.q_proj", "attn_q"},
                                                          {"self_attn.k_proj", "attn_k"},
                                                          {"self_attn.v_proj", "attn_v"},
                                                          {"self_attn.o_proj", "attn_output"},
                                                          {"mlp.gate_proj", "ffn_gate"},
                                                          {"mlp.up_proj", "ffn_up"},
                                                          {"mlp.down_proj", "ffn_down"},
                                                          {"input_layernorm", "attn_norm"},
                                                          {"post_attention_layernorm", "ffn_norm"},
                                                          {"self_attn.q_norm", "attn_q_norm"},
                                                          {"self_attn.k_norm", "attn_k_norm"}};
    const auto at = names.find(name);
    require(at != names.end(), "--format gguf: a tensor of a block is", name,
            "one that llama.cpp has a name for");
    return "blk." + std::to_string(block) + "." + at->second;
}

/// Rows of q and k as llama.cpp rotates them: the two halves of each head interleaved.
std::vector<Index> interleaved(Index rows, Index head_size) {
    std::vector<Index> source;
    for (Index r = 0; r < rows; ++r) {
        const Index within = r % head_size;
        source.push_back(r - within + within % 2 * (head_size / 2) + within / 2);
    }
    return source;
}

io::GGMLMatrix rows_of(const io::GGMLMatrix& matrix, const std::vector<Index>& source) {
    io::GGMLMatrix result{matrix.type, matrix.rows, matrix.cols};
    const auto bytes = static_cast<std::ptrdiff_t>(matrix.bytes.size()) / matrix.rows;
    for (const Index r : source)
        result.bytes.insert(result.bytes.end(), matrix.bytes.begin() + r * bytes,
                            matrix.bytes.begin() + (r + 1) * bytes);
    return result;
}

/// Tensors, and the values of those that are made here.
class Tensors {
  public:
    void add(std::string name, io::GGMLMatrix matrix) {
        matrices_.push_back(std::move(matrix));
        tensors_.push_back(io::gguf_tensor(std::move(name), matrices_.back()));
    }
    void add_half(std::string name, const llama::Rows& m) {
        auto& values = halves_.emplace_back();
        for (Index i = 0; i < m.size(); ++i) values.push_back(float16(m.data()[i]));
        tensors_.push_back(io::gguf_tensor(std::move(name), {m.rows(), m.cols()}, values));
    }
    void add_vector(std::string name, std::vector<float> values) {
        floats_.push_back(std::move(values));
        tensors_.push_back(io::gguf_tensor(std::move(name), {Index(floats_.back().size())}, floats_.back()));
    }
    void add_vector(std::string name, const llama::Vector& v) {
        add_vector(std::move(name), std::vector<float>(v.data(), v.data() + v.size()));
    }
    const std::vector<io::GGUFTensor>& list() const { return tensors_; }

  private:
    std::deque<io::GGMLMatrix> matrices_;  // whose elements stay where they are
    std::deque<std::vector<float16>> halves_;
    std::deque<std::vector<float>> floats_;
    std::vector<io::GGUFTensor> tensors_;
};

/// What llama.cpp divides the rates of the rotary embedding by.
std::vector<float> rotary_factors(const llama::Config& config) {
    std::vector<float> factors;
    for (Index i = 0; i < config.head_size / 2; ++i) {
        const double rate = config.rotary.rate(i, config.head_size);
        factors.push_back(float(1 / config.rotary.scaling->slowing(rate)));
    }
    return factors;
}

}  // namespace

std::vector<GGUFEntry> tokenizer_metadata(const std::filesystem::path& source, const llama::Config& config) {
    const nlohmann::json json = io::read_json(source / "config.json");
    std::vector<GGUFEntry> metadata;
    if (std::filesystem::exists(source / "tokenizer.json")) {
        add_bpe(metadata, io::read_json(source / "tokenizer.json"), config,
                json.value("model_type", "llama"));
    } else {
        require(config.vocabulary == 256, "--format gguf: without tokenizer.json, vocab_size is",
                config.vocabulary, "256, a token for each byte");
        add_tokens(metadata, byte_alphabet(), std::vector<std::int32_t>(256, normal_token), {}, "gpt-2");
        metadata.push_back({"tokenizer.ggml.add_bos_token", false});
    }
    add_id(metadata, "tokenizer.ggml.bos_token_id", json, "bos_token_id");
    add_id(metadata, "tokenizer.ggml.eos_token_id", json, "eos_token_id");
    return metadata;
}

GGUFOutput::GGUFOutput(std::filesystem::path file, std::filesystem::path source, const llama::Config& c,
                       io::GGMLType type, Existing existing)
    : file_(std::move(file)) {
    if (file_.has_parent_path()) std::filesystem::create_directories(file_.parent_path());
    require_new_file("--output", file_, existing == Existing::Overwrite);
    const nlohmann::json json = io::read_json(source / "config.json");
    const bool is_known = c.type == "llama" || c.type == "mistral" || c.type == "qwen2" || c.type == "qwen3";
    require(is_known, "--format gguf: model_type is", c.type, "llama, mistral, qwen2 or qwen3");
    require(c.rotary.divisor == 1, "--format gguf: rope_type is", "linear", "default or llama3");
    architecture_ = c.type == "mistral" ? "llama" : c.type;
    const auto number = [&](const std::string& key, Index value) {
        metadata_.push_back({architecture_ + "." + key, static_cast<std::uint32_t>(value)});
    };
    const auto real = [&](const std::string& key, double value) {
        metadata_.push_back({architecture_ + "." + key, static_cast<float>(value)});
    };
    metadata_.push_back({"general.architecture", architecture_});
    metadata_.push_back({"general.name", std::filesystem::weakly_canonical(source).filename().string()});
    metadata_.push_back({"general.file_type", file_type_of(type)});
    number("vocab_size", c.vocabulary);
    number("context_length", json.value("max_position_embeddings", Index(2048)));
    number("embedding_length", c.hidden);
    number("block_count", c.blocks);
    number("feed_forward_length", c.intermediate);
    number("attention.head_count", c.heads);
    number("attention.head_count_kv", c.key_value_heads);
    number("attention.key_length", c.head_size);
    number("attention.value_length", c.head_size);
    number("rope.dimension_count", c.head_size);
    real("attention.layer_norm_rms_epsilon", double(c.norm_epsilon));
    real("rope.freq_base", c.rotary.base);
    const auto tokenizer = tokenizer_metadata(source, c);
    metadata_.insert(metadata_.end(), tokenizer.begin(), tokenizer.end());
}

void GGUFOutput::write_block(Index, const QuantizedBlock& layers, const nlohmann::json&) {
    blocks_.push_back(layers);
}

void GGUFOutput::finish(const llama::Model& model, bool) {
    const llama::Config& c = model.config;
    Tensors tensors;
    tensors.add_half("token_embd.weight", model.embedding);
    tensors.add_vector("output_norm.weight", model.norm);
    if (!c.tied_head) tensors.add_half("output.weight", model.head);
    if (c.rotary.scaling) tensors.add_vector("rope_freqs.weight", rotary_factors(c));
    for (Index i = 0; i < c.blocks; ++i) {
        const llama::Block& block = model.blocks[std::size_t(i)];
        for (const llama::NormSpec& norm : llama::norms_of(c))
            tensors.add_vector(gguf_name(i, norm.name) + ".weight", block.*norm.norm);
        for (std::size_t l = 0; l < block.layers.size(); ++l) {
            const llama::LayerSpec& layer = block.layers[l].spec;
            const io::GGMLMatrix& blocks = blocks_.at(std::size_t(i)).at(l).blocks;
            const bool rotates = layer.role == llama::Role::Query || layer.role == llama::Role::Key;
            const std::vector<Index> source = rotates && architecture_ == "llama"
                                                  ? interleaved(blocks.rows, c.head_size)
                                                  : detail::natural_order(blocks.rows);
            const std::string name = gguf_name(i, layer.name);
            tensors.add(name + ".weight", rows_of(blocks, source));
            const llama::Vector& bias = block.layers[l].linear.bias;
            if (bias.size() == 0) continue;
            std::vector<float> values;
            for (const Index r : source) values.push_back(bias(r));
            tensors.add_vector(name + ".bias", std::move(values));
        }
    }
    io::write_gguf(file_, metadata_, tensors.list());
}
