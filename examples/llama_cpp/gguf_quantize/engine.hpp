#pragma once

#include <llama-cpp.h>

#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <residua/core/error.hpp>
#include <residua/core/types.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

/// llama.cpp as this program uses it: on the CPU, with its messages kept for errors of our own.
namespace engine {

using residua::Index;
using Window = std::vector<llama_token>;

/// llama.cpp's warnings and errors since the last call of take(), in place of its own output. Its logger is one for the
/// whole process.
class Log {
  public:
    static void keep() {
        llama_log_set(
            [](ggml_log_level level, const char* text, void*) {
                if (level != GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_WARN) return;
                const std::lock_guard lock(mutex());
                if (text_().size() < limit) text_() += text;
            },
            nullptr);
    }

    static std::string take() {
        const std::lock_guard lock(mutex());
        std::string text;
        std::swap(text, text_());
        while (!text.empty() && text.back() == '\n') text.pop_back();
        return text;
    }

  private:
    static constexpr std::size_t limit = 4096;
    static std::mutex& mutex() {
        static std::mutex mutex;
        return mutex;
    }
    static std::string& text_() {
        static std::string text;
        return text;
    }
};

[[noreturn]] inline void fail(const std::string& what) {
    throw std::runtime_error("residua: llama.cpp " + what + ": " + Log::take());
}

/// Weights lie in memory as in the file. `mapped`: they are read-only and shared with it.
inline llama_model_ptr load(const std::filesystem::path& file, bool mapped) {
    llama_model_params params = llama_model_default_params();
    static ggml_backend_dev_t no_devices[] = {nullptr};
    params.devices = no_devices;
    params.n_gpu_layers = 0;
    params.use_extra_bufts = false;  // which would store weights in another order
    params.load_mode = mapped ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.load_mtp = false;  // no graph of a text reads these layers
    llama_model_ptr model(llama_model_load_from_file(file.c_str(), params));
    if (!model) fail("cannot load '" + file.string() + "'");
    residua::require(llama_model_has_decoder(model.get()) && !llama_model_has_encoder(model.get()),
                     "--model: the model has", "an encoder", "a decoder alone");
    return model;
}

/// Sends windows of text through a model, several at a time and each on its own, and shows every node of the graphs to a
/// visitor.
class Walk {
  public:
    /// As the scheduler of ggml calls it: with `ask` before a node is computed, where true means that it shall be shown
    /// again after that; false then ends the graph there. What it throws ends the graph, and run() throws it.
    using Visit = std::function<bool(ggml_tensor* node, bool ask)>;

    struct Shape {
        Index window = 0;   ///< tokens of one
        Index windows = 0;  ///< at a time, at most
        Index outputs = 0;  ///< tokens of a batch that go through the output layer
        int threads = 1;
    };

    Walk(llama_model& model, const Shape& shape, Visit visit) : shape_(shape), visit_(std::move(visit)) {
        llama_context_params params = llama_context_default_params();
        const auto tokens = static_cast<std::uint32_t>(shape.window * shape.windows);
        params.n_ctx = params.n_batch = params.n_ubatch = tokens;
        params.n_seq_max = static_cast<std::uint32_t>(shape.windows);
        params.n_outputs_max = static_cast<std::uint32_t>(shape.outputs);
        params.n_threads = params.n_threads_batch = shape.threads;
        params.cb_eval = &Walk::called;
        params.cb_eval_user_data = this;
        params.offload_kqv = params.op_offload = false;
        params.no_perf = true;
        context_.reset(llama_init_from_model(&model, params));
        if (!context_) fail("cannot take " + std::to_string(tokens) + " tokens at a time");
        batch_ = llama_batch_init(static_cast<std::int32_t>(tokens), 0, 1);
    }
    Walk(const Walk&) = delete;
    ~Walk() { llama_batch_free(batch_); }

    /// At most Shape::windows windows of Shape::window tokens.
    void run(std::span<const Window> windows) {
        llama_memory_clear(llama_get_memory(context_.get()), false);
        batch_.n_tokens = 0;
        const Index tokens = shape_.window * static_cast<Index>(windows.size());
        const Index step = (tokens + shape_.outputs - 1) / shape_.outputs;  // between tokens with an output
        for (std::size_t w = 0; w < windows.size(); ++w) {
            for (std::size_t i = 0; i < windows[w].size(); ++i) {
                const auto at = batch_.n_tokens++;
                batch_.token[at] = windows[w][i];
                batch_.pos[at] = static_cast<llama_pos>(i);
                batch_.n_seq_id[at] = 1;
                batch_.seq_id[at][0] = static_cast<llama_seq_id>(w);
                batch_.logits[at] = at % step == 0;
            }
        }
        ended_ = false;
        const int result = llama_decode(context_.get(), batch_);
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
        if (result != 0) fail("cannot evaluate the model (llama_decode: " + std::to_string(result) + ")");
    }

  private:
    static bool called(ggml_tensor* node, bool ask, void* self) {
        Walk& walk = *static_cast<Walk*>(self);
        if (walk.ended_)
            return ask;  // of another part of the graph: true, and then false, ends it at its first node
        try {
            const bool go_on = walk.visit_(node, ask);
            if (!ask && !go_on) walk.ended_ = true;
            return go_on;
        } catch (...) {  // which must not cross C
            walk.error_ = std::current_exception();
            walk.ended_ = true;
            return ask;
        }
    }

    Shape shape_;
    Visit visit_;
    llama_context_ptr context_;
    llama_batch batch_ = {};
    bool ended_ = false;
    std::exception_ptr error_;
};

}  // namespace engine
