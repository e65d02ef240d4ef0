#pragma once

#include <thread>

#include "handoff.hpp"
#include "quantizing_run.hpp"

/// Quantizes a model while the text walks through it. The draft itself is the second model in memory, beside the one in full
/// precision. All of the text goes through both at the same time, in one batch and node by node. Where the draft's graph is
/// about to multiply by a weight, what the weight reads is known in both models; it is solved, its bytes replace those of
/// the draft, in the file and in memory, and the walk goes on with it. So each layer sees what llama.cpp itself makes of the
/// tokens with the quantized layers before it, and the whole costs one evaluation of the text by either model. Memory holds
/// the activations of the whole text.
class Sequential {
  public:
    using Index = residua::Index;

    Sequential(QuantizingRun& run, llama_model& reference, const std::vector<Reading>& readings,
               const std::vector<engine::Window>& windows)
        : run_(run), reference_(reference), readings_(readings), windows_(windows) {
        for (std::size_t i = 0; i < readings.size(); ++i)
            if (run_.is_open(readings[i])) open_[readings[i].weights.front()] = i;
        const auto most = llama_max_parallel_sequences();
        residua::require(windows.size() <= most, "--sequential: the windows of --calibration are",
                         windows.size(), "at most " + std::to_string(most) + ": take longer ones, or fewer");
    }

    void operator()() {
        if (open_.empty()) return;
        const llama_model_ptr draft = engine::load(run_.draft().path(), false);
        if (!reads_reference()) return walk(*draft);
        std::exception_ptr failed;
        std::thread reference([&] {
            try {
                walk_reference();
            } catch (...) {
                failed = std::current_exception();
            }
            handoff_.close();
        });
        struct Join {
            Handoff& handoff;
            std::thread& thread;
            ~Join() {
                handoff.close();
                if (thread.joinable()) thread.join();
            }
        } join{handoff_, reference};
        try {
            walk(*draft);
        } catch (...) {
            handoff_.close();
            reference.join();
            if (failed) std::rethrow_exception(failed);  // which the other one was waiting for
            throw;
        }
    }

  private:
    static constexpr double output_bytes = double(1 << 30);  // of logits, at most

    bool reads_reference() const { return run_.settings().method == "qep"; }

    engine::Walk::Shape shape(const llama_model& model) const {
        const Index tokens = run_.settings().window * Index(windows_.size());
        const auto vocabulary = double(llama_vocab_n_tokens(llama_model_get_vocab(&model)));
        const auto outputs = Index(output_bytes / sizeof(float) / vocabulary);
        return {.window = run_.settings().window,
                .windows = Index(windows_.size()),
                .outputs = std::clamp<Index>(outputs, 1, tokens),
                .threads = run_.quantizer().threads()};
    }

    void walk_reference() {
        std::vector<ggml_tensor*> nodes;
        engine::Walk walk(reference_, shape(reference_), [&](ggml_tensor* node, bool ask) {
            if (ask) nodes.push_back(node);
            const auto use = WeightUse::of(node);
            const bool is_wanted = use && open_.contains(use->name());
            if (ask) return is_wanted;
            return handoff_.offer({*use, &nodes});
        });
        walk.run(windows_);
    }

    void walk(llama_model& draft) {
        std::vector<ggml_tensor*> nodes;
        std::size_t done = readings_.size() - open_.size();
        engine::Walk walk(draft, shape(draft), [&](ggml_tensor* node, bool ask) {
            if (!ask) return true;
            const auto use = WeightUse::of(node);
            const auto at = use ? open_.find(use->name()) : open_.end();
            if (at != open_.end()) {
                const Reading& reading = readings_[at->second];
                solve(reading, *use, nodes);
                run_.report(++done, readings_.size(), reading);
            }
            if (use) replace(*use);
            nodes.push_back(node);
            return true;  // else ggml would compute several nodes before it asks for the next one
        });
        walk.run(windows_);
    }

    /// All weights that read what `use` reads, which has been computed.
    void solve(const Reading& reading, const WeightUse& use, const std::vector<ggml_tensor*>& nodes) {
        const auto reference =
            reads_reference() ? std::optional(handoff_.take(use.name())) : std::optional<ReferenceUse>();
        std::vector<QuantizingRun::Moments> moments;
        for (Index m = 0; m < reading.matrices; ++m) {
            moments.emplace_back(run_.quantizer().backend(), reading.features);
            if (reference) {
                accumulate_pair(moments.back(), reading, m, {use, &nodes}, *reference);
            } else {
                accumulate_use(moments.back(), use, m);
            }
        }
        if (reference) handoff_.release();
        for (const std::string& weight : reading.weights) {
            for (Index m = 0; m < reading.matrices; ++m) run_.quantize(weight, m, moments[std::size_t(m)]);
            replaced_.insert(weight);
        }
    }

    /// x and x_fp of the same tokens. A token that an expert does not read in full precision counts as without deviation.
    void accumulate_pair(QuantizingRun::Moments& moments, const Reading& reading, Index m,
                         const ReferenceUse& draft, const ReferenceUse& reference) const {
        const auto places = draft.use.places(m);
        if (places.empty()) return;
        const residua::Matrix<float> x = rows_at(draft.use, places);
        residua::Matrix<float> x_fp(x.rows(), x.cols());
        for (std::size_t i = 0; i < places.size(); ++i) {
            const auto place = draft.use.choices() ? reference.use.place_of(places[i].token, m) : places[i];
            std::copy_n(place ? reference.use.values(*place) : draft.use.values(places[i]), x.cols(),
                        x_fp.view().row(Index(i)));
        }
        residua::ResidualStream<float> stream = {};
        if (reading.stream)
            stream = {rows_of(*draft.nodes, *reading.stream), rows_of(*reference.nodes, *reading.stream)};
        compiled::accumulate(moments, std::as_const(x).view(), std::as_const(x_fp).view(), stream);
    }

    /// Of the node of that name, one row a token.
    static compiled::Values rows_of(const std::vector<ggml_tensor*>& nodes, const std::string& name) {
        const auto has_it = [&](const ggml_tensor* node) { return name == node->name; };
        const auto at = std::find_if(nodes.rbegin(), nodes.rend(), has_it);
        residua::require(at != nodes.rend() && (*at)->type == GGML_TYPE_F32 && ggml_is_contiguous(*at),
                         "the residual stream " + name + " is", "missing",
                         "a node of contiguous rows of F32");
        return {static_cast<const float*>((*at)->data), ggml_nrows(*at), Index((*at)->ne[0])};
    }

    /// In memory, what the file holds by now.
    void replace(const WeightUse& use) {
        if (replaced_.erase(use.name()) == 0) return;
        const GGUFIndex::Tensor* tensor = run_.target(use.name());
        if (!tensor) return;
        const std::vector<std::byte> bytes = run_.draft().read(*tensor);
        ggml_backend_tensor_set(use.weight(), bytes.data(), 0, bytes.size());
    }

    QuantizingRun& run_;
    llama_model& reference_;
    const std::vector<Reading>& readings_;
    const std::vector<engine::Window>& windows_;
    std::map<std::string, std::size_t> open_;  // readings by their first weights
    std::set<std::string> replaced_;           // in the file, not yet in memory
    Handoff handoff_;
};
