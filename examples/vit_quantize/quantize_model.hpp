#pragma once

#include <algorithm>
#include <numeric>
#include <utility>

#include "../support/layer_record.hpp"
#include "../support/solvers.hpp"
#include "../vit/runner.hpp"
#include "settings.hpp"

/// Quantizes a vision transformer in place, by one method: the patch embedding, then the linear layers of all blocks in the
/// order of the computation. The calibration images go through two models at once, the full-precision one and the one that
/// is being quantized, and stop before each layer, so that it sees what its quantized predecessors make of them.
class ModelQuantizer {
  public:
    using Index = residua::Index;

    /// All must outlive this.
    ModelQuantizer(const Settings& settings, const std::string& method, const residua::Executor& executor)
        : settings_(settings), method_(method), executor_(executor), backend_(executor) {}

    /// Throws UnsolvedLayer where a layer cannot be solved.
    std::vector<LayerRecord> run(vit::Model& model, const vit::Images& images) {
        const vit::Model original = model;
        records_.clear();
        if (settings_.patch_bits < 16) quantize_patches(model, images);

        const vit::Runner reference_runner(model.config);
        const vit::Runner runner(model.config, settings_.activations);
        const Index references = needs_reference() ? images.count() : std::min(images.count(), sample_images);
        Streams streams{.reference = std::vector<vit::Activations>(std::size_t(references)),
                        .quantized = std::vector<vit::Activations>(std::size_t(images.count()))};
        const auto each = [&](auto body) {
            executor_(references + images.count(), [&](Index i) {
                if (i < references) {
                    body(original, reference_runner, streams.reference[std::size_t(i)],
                         images.pixels.row(i).data());
                } else {
                    body(model, runner, streams.quantized[std::size_t(i - references)],
                         images.pixels.row(i - references).data());
                }
            });
        };
        each([](const vit::Model& m, const vit::Runner& r, vit::Activations& a, const float* image) {
            a = r.embed(m, image);
        });
        for (Index b = 0; b < model.config.blocks; ++b) {
            const auto at = std::size_t(b);
            each([&](const vit::Model& m, const vit::Runner& r, vit::Activations& a, const float*) {
                r.enter(m.blocks[at], a);
            });
            for (const vit::Layer layer : vit::layers) {
                const bool writes_stream = layer == vit::Layer::Proj || layer == vit::Layer::Fc2;
                quantize(vit::block_prefix(b) + vit::name_of(layer), original.blocks[at][layer],
                         model.blocks[at][layer], streams,
                         writes_stream && settings_.solve.corrects_stream(method_), settings_.solve);
                each([&](const vit::Model& m, const vit::Runner& r, vit::Activations& a, const float*) {
                    r.advance(layer, m.blocks[at], a);
                });
            }
        }
        return std::move(records_);
    }

  private:
    /// Images on their way through both models; the first of them alone through the full-precision model where only the
    /// errors of LayerRecord ask for it.
    struct Streams {
        std::vector<vit::Activations> reference, quantized;

        Index count() const { return Index(quantized.size()); }
    };

    static constexpr Index batch_images = 32;
    static constexpr Index sample_images = 16;  // that the errors of LayerRecord are of

    bool needs_reference() const {
        return settings_.solve.corrects_stream(method_) ||
               (method_ != "rtn" && with_method(method_, settings_.solve, []<class Method>(const Method&) {
                    return Method::residuals != residua::Residuals::None;
                }));
    }

    /// The patch embedding is a convolution without overlap, and so a linear layer of the rows of its im2col matrix, which
    /// both models share.
    void quantize_patches(vit::Model& model, const vit::Images& images) {
        SolveSettings solve = settings_.solve;
        solve.grid.bits = settings_.patch_bits;
        Streams streams;
        for (Index i = 0; i < images.count(); ++i)
            streams.quantized.push_back(
                {.residual = {}, .input = vit::patches_of(model.config, images.pixels.row(i).data())});
        streams.reference = streams.quantized;
        const network::Linear original = model.patches;
        quantize("patch_embed.proj", original, model.patches, streams, false, solve);
    }

    /// Quantizes a layer whose inputs the streams hold.
    void quantize(const std::string& name, const network::Linear& original, network::Linear& layer,
                  const Streams& streams, bool corrects_stream, const SolveSettings& solve) {
        LayerRecord record{.name = name};
        const auto weights = network::view(original.weight);
        const auto adopt = [&](const compiled::Quantized<compiled::Cpu>& q) {
            record.take_down(q.report);
            const residua::Matrix<float> values = q.dequantize(backend_);
            layer.weight = Eigen::Map<const network::Rows>(values.data(), values.rows(), values.cols());
        };
        if (method_ == "rtn") {
            adopt(compiled::round_weights(backend_, weights, solve.grid, solve.options.group_size));
        } else {
            with_method(method_, solve, [&]<class Method>(const Method& method) {
                const bool reads_reference = Method::residuals != residua::Residuals::None || corrects_stream;
                const auto moments = moments_of(streams, weights.cols, reads_reference, corrects_stream);
                const residua::Solver<Method, float, compiled::Cpu> solver(moments, solve.options, method);
                adopt(compiled::quantize_rows(solver, weights, 0, solve.grid));
            });
        }
        record.output_error = output_error(streams, original, layer);
        records_.push_back(std::move(record));
    }

    compiled::Moments<compiled::Cpu> moments_of(const Streams& streams, Index features, bool reads_reference,
                                                bool corrects_stream) {
        compiled::Moments<compiled::Cpu> moments(backend_, features);
        for (Index first = 0; first < streams.count(); first += batch_images) {
            const Index last = std::min(streams.count(), first + batch_images);
            const auto stack = [&](bool is_wanted, const auto& images, vit::Rows vit::Activations::*rows) {
                return is_wanted ? stacked(images, first, last, rows) : vit::Rows();
            };
            const vit::Rows x = stack(true, streams.quantized, &vit::Activations::input);
            const vit::Rows x_fp = stack(reads_reference, streams.reference, &vit::Activations::input);
            const vit::Rows h = stack(corrects_stream, streams.quantized, &vit::Activations::residual);
            const vit::Rows h_fp = stack(corrects_stream, streams.reference, &vit::Activations::residual);
            compiled::Values reference;
            residua::ResidualStream<float> stream;
            if (reads_reference) reference = network::view(x_fp);
            if (corrects_stream) stream = {network::view(h), network::view(h_fp)};
            compiled::accumulate(moments, network::view(x), reference, stream);
        }
        return moments;
    }

    /// Rows of images [first, last), which have equally many, one image below the other.
    static vit::Rows stacked(const std::vector<vit::Activations>& images, Index first, Index last,
                             vit::Rows vit::Activations::*member) {
        const vit::Rows& one = images[std::size_t(first)].*member;
        vit::Rows rows((last - first) * one.rows(), one.cols());
        for (Index i = first; i < last; ++i)
            rows.middleRows((i - first) * one.rows(), one.rows()) = images[std::size_t(i)].*member;
        return rows;
    }

    /// |Q x - W x_fp| / |W x_fp| on some images.
    double output_error(const Streams& streams, const network::Linear& original,
                        const network::Linear& quantized) const {
        const Index count = std::min(streams.count(), sample_images);
        std::vector<double> difference(std::size_t(count), 0.0), size(difference);
        executor_(count, [&](Index i) {
            const auto at = std::size_t(i);
            const vit::Rows wanted = original(streams.reference[at].input);
            size[at] = wanted.cast<double>().squaredNorm();
            difference[at] = (quantized(streams.quantized[at].input) - wanted).cast<double>().squaredNorm();
        });
        return std::sqrt(std::accumulate(difference.begin(), difference.end(), 0.0) /
                         std::accumulate(size.begin(), size.end(), 0.0));
    }

    const Settings& settings_;
    const std::string& method_;
    const residua::Executor& executor_;
    compiled::Cpu backend_;
    std::vector<LayerRecord> records_;
};
