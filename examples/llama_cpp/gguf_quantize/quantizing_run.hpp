#pragma once

#include <chrono>
#include <cstdio>

#include "draft.hpp"
#include "engine.hpp"
#include "matrix_quantizer.hpp"
#include "reading_plan.hpp"

/// What both ways through a model share: which weights are to be replaced, and to replace one.
class QuantizingRun {
  public:
    using Index = residua::Index;
    using Moments = MatrixQuantizer::Moments;

    QuantizingRun(const Settings& settings, const GGUFIndex& source, Draft& draft)
        : settings_(settings),
          source_(source),
          draft_(draft),
          quantizer_(settings.method, settings.solve, settings.threads) {}

    const Settings& settings() const { return settings_; }
    Draft& draft() { return draft_; }
    MatrixQuantizer& quantizer() { return quantizer_; }

    /// Where the file has what takes the place of a weight of the model; null for a weight that it holds as it is, and for
    /// the embedding of tokens, which llama.cpp rounds without weights even where the output layer is the same tensor.
    const GGUFIndex::Tensor* target(const std::string& weight) const {
        const GGUFIndex::Tensor* made = draft_.file().find(weight);
        const GGUFIndex::Tensor* given = source_.find(weight);
        if (!made || !given || !ggml_is_quantized(made->type) || made->type == given->type) return nullptr;
        return weight.find("token_embd.weight") == std::string::npos ? made : nullptr;
    }

    /// Whether any matrix that reads this is still to be quantized.
    bool is_open(const Reading& reading) const {
        for (const std::string& weight : reading.weights) {
            if (!target(weight)) continue;
            for (Index m = 0; m < reading.matrices; ++m)
                if (!draft_.has(weight, m)) return true;
        }
        return false;
    }

    /// Replaces one matrix by what the moments of its input make of it, unless that has been done. Throws
    /// std::runtime_error where it read no token, unless the user allowed that: then the draft keeps what llama.cpp made.
    void quantize(const std::string& weight, Index matrix, const Moments& moments) {
        const GGUFIndex::Tensor* tensor = target(weight);
        if (!tensor || draft_.has(weight, matrix)) return;
        if (moments.tokens() == 0) {
            const std::string name =
                weight + (tensor->matrices > 1 ? "[" + std::to_string(matrix) + "]" : "");
            if (!settings_.allow_unseen)
                throw std::runtime_error("residua: " + name +
                                         " read no token of --calibration: take a longer text, or " +
                                         "--allow-unseen-experts to round it");
            const auto bytes = draft_.file().bytes(*tensor, matrix);
            draft_.replace(*tensor, matrix, std::vector(bytes.begin(), bytes.end()),
                           {.tensor = weight,
                            .matrix = matrix,
                            .type = ggml_type_name(tensor->type),
                            .method = "ggml",
                            .degradation = "read no token, rounded"});
            return;
        }
        const residua::Matrix<float> weights = source_.values(*source_.find(weight), matrix);
        const MatrixInFile q = quantizer_(*tensor, matrix, weights.view(), moments);
        draft_.replace(*tensor, matrix, q.bytes, q.record);
    }

    /// A line on stderr for an input whose weights are done.
    void report(std::size_t done, std::size_t total, const Reading& reading) const {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
        std::fprintf(stderr, "%zu of %zu inputs done, %.1f s: %s\n", done, total, seconds,
                     reading.weights.front().c_str());
    }

  private:
    const Settings& settings_;
    const GGUFIndex& source_;
    Draft& draft_;
    MatrixQuantizer quantizer_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Adds what matrix `m` reads to its moments.
inline void accumulate_use(QuantizingRun::Moments& moments, const WeightUse& use, residua::Index m) {
    if (use.matrices() == 1 && !use.choices() && ggml_is_contiguous(use.input())) {
        const compiled::Values x(static_cast<const float*>(use.input()->data), ggml_nrows(use.input()),
                                 use.features());
        compiled::accumulate(moments, x, {});
        return;
    }
    const auto places = use.places(m);
    if (places.empty()) return;
    const residua::Matrix<float> x = rows_at(use, places);
    compiled::accumulate(moments, x.view(), {});
}
