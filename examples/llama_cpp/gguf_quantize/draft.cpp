#include "draft.hpp"

#include <fstream>
#include <residua/io/formats/model_config.hpp>
#include <residua/io/strict_json.hpp>

#include "engine.hpp"
#include "type_names.hpp"

namespace fs = std::filesystem;
using namespace residua;

namespace {

std::string quoted_pattern(const std::string& name) {
    std::string pattern = "^";
    for (const char c : name) {
        if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') pattern += '\\';
        pattern += c;
    }
    return pattern + "$";
}

void write_at(const fs::path& path, std::size_t offset, std::span<const std::byte> bytes) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) throw io::FileError("open", path.string(), errno);
    while (!bytes.empty()) {
        const ssize_t written = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (written <= 0) {
            const int error = errno;
            ::close(file);
            throw io::FileError("write", path.string(), error);
        }
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        offset += static_cast<std::size_t>(written);
    }
    ::close(file);
}

void make_durable(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw io::FileError("open", path.string(), errno);
    const int error = ::fsync(file) == 0 ? 0 : errno;
    ::close(file);
    if (error != 0 && error != EINVAL) throw io::FileError("make durable", path.string(), error);
}

constexpr const char* state_name = "state.json";
constexpr const char* journal_name = "journal.jsonl";

}  // namespace

Draft::Draft(const Settings& settings, const nlohmann::json& fingerprint, const std::set<std::string>& read)
    : folder_(settings.output.string() + ".work") {
    const bool is_there = fs::exists(folder_);
    const std::string shown = "--output: '" + folder_.string() + "'";
    require(!is_there || settings.existing != Existing::Refuse, shown, "is there from a run that ended early",
            "--resume to go on with it, or --overwrite");
    if (!is_there) fs::create_directory(folder_);
    lock_.emplace(folder_);
    const fs::path state = folder_ / state_name;
    const bool goes_on = settings.existing == Existing::Resume && fs::exists(state);
    if (goes_on) {
        const auto of = io::read_json(state);
        for (const auto& [key, value] : fingerprint.items())
            require(of.value(key, nlohmann::json()) == value, "--resume: " + shown + " has", "another " + key,
                    "the same settings, model and text as before, or --overwrite");
    } else {
        for (const char* name : {state_name, journal_name, "draft.gguf"}) fs::remove(folder_ / name);
        try {
            make(settings, read);
        } catch (...) {
            fs::remove(path());
            lock_.reset();
            std::error_code ignored;
            fs::remove(folder_, ignored);  // if nothing else is in it
            throw;
        }
        io::write_json(state, fingerprint);
    }
    file_ = std::make_unique<GGUFIndex>(path());
    if (goes_on) read_journal();
}

void Draft::make(const Settings& settings, const std::set<std::string>& read) const {
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = settings.threads;
    params.allow_requantize = settings.allow_requantize;
    std::vector<std::pair<std::string, ggml_type>> types = settings.tensor_types;
    if (settings.like.empty()) {
        params.ftype = mix_named(settings.type);
    } else {
        const GGUFIndex like(settings.like);
        const auto ftype = like.number("general.file_type");
        require(ftype.has_value(), "--like: '" + settings.like.string() + "' has general.file_type", "absent",
                "a file of llama.cpp's quantizer");
        params.ftype = static_cast<llama_ftype>(*ftype);
        for (const auto& t : like.tensors()) types.emplace_back(quoted_pattern(t.name), t.type);
    }
    std::vector<llama_model_tensor_override> overrides;
    for (const auto& [pattern, type] : types) overrides.push_back({pattern.c_str(), type});
    overrides.push_back({nullptr, GGML_TYPE_COUNT});
    params.tt_overrides = overrides.data();

    // Some of llama.cpp's choices of types depend on there being an importance matrix. What it weighs will be replaced.
    const GGUFIndex source(settings.model);
    std::vector<llama_model_imatrix_data> importance;
    std::vector<std::vector<float>> ones;
    for (const auto& t : source.tensors()) {
        if (!read.contains(t.name)) continue;
        ones.emplace_back(static_cast<std::size_t>(t.cols * t.matrices), 1.0f);
        importance.push_back({t.name.c_str(), ones.back().data(), ones.back().size()});
    }
    importance.push_back({nullptr, nullptr, 0});
    params.imatrix = importance.data();
    std::fprintf(stderr, "llama.cpp writes the draft\n");
    if (llama_model_quantize(settings.model.c_str(), path().c_str(), &params) != 0)
        engine::fail("cannot write the draft '" + path().string() + "'");

    if (settings.like.empty()) return;
    const GGUFIndex like(settings.like), made(path());
    for (const auto& t : made.tensors()) {
        const GGUFIndex::Tensor* wanted = like.find(t.name);
        require(wanted != nullptr, "--like: the tensor '" + t.name + "' is", "missing",
                "a file of the same model");
        const bool is_overridden = !settings.tensor_types.empty();
        require(wanted->type == t.type || is_overridden, "--like: the tensor '" + t.name + "' has the type",
                ggml_type_name(wanted->type),
                "one that llama.cpp gives it: " + std::string(ggml_type_name(t.type)));
    }
}

void Draft::read_journal() {
    std::ifstream journal(folder_ / journal_name);
    for (std::string line; std::getline(journal, line);) {
        const auto entry = nlohmann::json::parse(line, nullptr, false);
        if (!entry.is_object() || !entry.contains("hash"))
            continue;  // the run was killed while it wrote this line
        const Record record = Record::of(entry.at("record"));
        if (hash(record.tensor, record.matrix) == entry.at("hash").get<std::string>())
            done_[{record.tensor, record.matrix}] = record;
    }
}

std::string Draft::hash(const std::string& tensor, Index matrix) const {
    const GGUFIndex::Tensor* t = file_->find(tensor);
    if (!t || matrix >= t->matrices) return "";
    ContentHash hash;
    hash.add(file_->bytes(*t, matrix));
    return hash.text();
}

void Draft::replace(const GGUFIndex::Tensor& tensor, Index matrix, std::span<const std::byte> bytes,
                    const Record& record) {
    require(bytes.size() == tensor.bytes_of_matrix(),
            "a solve of '" + tensor.name + "' gave bytes:", bytes.size(),
            std::to_string(tensor.bytes_of_matrix()));
    lock_->check();
    write_at(path(), tensor.offset + static_cast<std::size_t>(matrix) * bytes.size(), bytes);
    ContentHash hash;
    hash.add(bytes);
    std::ofstream journal(folder_ / journal_name, std::ios::app);
    journal << nlohmann::json{{"record", record.json()}, {"hash", hash.text()}}.dump() << '\n';
    if (!journal.flush()) throw io::FileError("write", (folder_ / journal_name).string(), errno);
    done_[{tensor.name, matrix}] = record;
}

std::vector<std::byte> Draft::read(const GGUFIndex::Tensor& tensor) const {
    std::vector<std::byte> bytes(tensor.size);
    std::ifstream file(path(), std::ios::binary);
    file.seekg(static_cast<std::streamoff>(tensor.offset));
    if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size())))
        throw io::FileError("read", path().string(), EIO);
    return bytes;
}

std::vector<Record> Draft::records() const {
    std::vector<Record> list;
    for (const auto& [key, record] : done_) list.push_back(record);
    return list;
}

void Draft::finish(const fs::path& output) {
    lock_->check();
    make_durable(path());
    fs::rename(path(), output);
    make_durable(fs::absolute(output).parent_path());
    file_.reset();
    for (const char* name : {state_name, journal_name}) fs::remove(folder_ / name);
    lock_.reset();
    std::error_code ignored;
    fs::remove(folder_, ignored);
}
