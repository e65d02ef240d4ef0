#pragma once

#include <deque>

#include "../../support/memory.hpp"
#include "quantizing_run.hpp"

/// Quantizes a model from what its layers read in full precision: the text goes through the model once for as many inputs as
/// have room for their moments, then their weights are solved, then the next ones. Without room for all, the text goes
/// through again, each time up to the last layer that is wanted.
class OnePass {
  public:
    using Index = residua::Index;

    OnePass(QuantizingRun& run, llama_model& model, const std::vector<Reading>& readings,
            const std::vector<engine::Window>& windows)
        : run_(run), model_(model), readings_(readings), windows_(windows) {}

    void operator()() {
        std::vector<std::size_t> open;
        for (std::size_t i = 0; i < readings_.size(); ++i)
            if (run_.is_open(readings_[i])) open.push_back(i);
        const double budget =
            run_.settings().memory > 0 ? run_.settings().memory * (1 << 30) : 0.8 * available_memory();
        for (std::size_t done = readings_.size() - open.size(); !open.empty();) {
            double taken = solve_memory();
            std::size_t count = 0;
            while (count < open.size() && (count == 0 || taken + memory_of(readings_[open[count]]) <= budget))
                taken += memory_of(readings_[open[count++]]);
            collect({open.begin(), open.begin() + std::ptrdiff_t(count)});
            for (std::size_t i = 0; i < count; ++i) {
                const Reading& reading = readings_[open[i]];
                for (Index m = 0; m < reading.matrices; ++m) {
                    for (const std::string& weight : reading.weights)
                        run_.quantize(weight, m, moments_[i][std::size_t(m)]);
                    moments_[i][std::size_t(m)].forget_factorization();
                }
                moments_[i].clear();
                run_.report(++done, readings_.size(), reading);
            }
            open.erase(open.begin(), open.begin() + std::ptrdiff_t(count));
        }
    }

  private:
    static constexpr Index batch_tokens = 2048;

    static double memory_of(const Reading& r) {
        return sizeof(float) * double(r.features) * double(r.features) * double(r.matrices);
    }
    double solve_memory() const {
        double most = 0;
        for (const Reading& reading : readings_) {
            for (const std::string& weight : reading.weights)
                if (const auto* t = run_.target(weight))
                    most = std::max(most, MatrixQuantizer::memory_for(double(t->rows), double(t->cols)));
        }
        return most;
    }

    /// Moments of those readings, from the whole text.
    void collect(const std::vector<std::size_t>& wanted) {
        moments_.clear();
        std::map<std::string, std::size_t> by_weight;  // of the first weight of each reading
        for (const std::size_t i : wanted) {
            by_weight[readings_[i].weights.front()] = moments_.size();
            auto& list = moments_.emplace_back();
            for (Index m = 0; m < readings_[i].matrices; ++m)
                list.emplace_back(run_.quantizer().backend(), readings_[i].features);
        }
        const Reading& last = readings_[wanted.back()];
        const auto visit = [&](ggml_tensor* node, bool ask) {
            const auto use = WeightUse::of(node);
            const auto at = use ? by_weight.find(use->name()) : by_weight.end();
            if (at == by_weight.end()) return !ask;
            if (ask) return true;
            for (Index m = 0; m < use->matrices(); ++m)
                accumulate_use(moments_[at->second][std::size_t(m)], *use, m);
            return use->name() != last.weights.front() || last.uses > 1;
        };
        const Index window = run_.settings().window;
        const Index at_once =
            std::clamp<Index>(batch_tokens / window, 1,
                              std::min<Index>(Index(windows_.size()), Index(llama_max_parallel_sequences())));
        engine::Walk walk(
            model_, {.window = window, .windows = at_once, .outputs = window * at_once, .threads = threads()},
            visit);
        for (std::size_t first = 0; first < windows_.size(); first += std::size_t(at_once)) {
            const std::size_t count = std::min(windows_.size() - first, std::size_t(at_once));
            walk.run(std::span(windows_).subspan(first, count));
        }
    }

    int threads() const { return run_.quantizer().threads(); }

    QuantizingRun& run_;
    llama_model& model_;
    const std::vector<Reading>& readings_;
    const std::vector<engine::Window>& windows_;
    std::deque<std::deque<QuantizingRun::Moments>> moments_;  // by reading and matrix
};
