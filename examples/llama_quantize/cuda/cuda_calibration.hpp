#pragma once

#include <algorithm>

#include "../calibration.hpp"
#include "cuda_model.hpp"

/// Calibration in device memory: keeps the residual stream and one input of all windows of this rank's, for both models.
/// A block's weights come while the one before is quantized, and its codes leave while the next one is.
class CudaCalibration : public Calibration {
  public:
    /// `references`: how many of all windows go through the full-precision model too. `model` must outlive this.
    CudaCalibration(CudaModel& model, const llama::Windows& windows, Index references,
                    const llama::ActivationSettings& activations, const Segments& segments)
        : model_(model),
          first_segment_(segments.mine.first),
          selection_(Index(windows.size()), references, segments),
          reference_runner_(gpu(), config(), llama::longest(windows)),
          runner_(gpu(), config(), llama::longest(windows), activations),
          reference_windows_(gpu(), selected(windows, selection_.references)),
          windows_(gpu(), selected(windows, Index(selection_.windows.size()))),
          reference_(runner_.embed(model.embedding(), reference_windows_)),
          quantized_(runner_.embed(model.embedding(), windows_)),
          loader_(gpu(), config(), model.source()),
          leaving_stream_(residua::detail::cuda::create_stream()) {}

    ~CudaCalibration() override { await_leaving(); }

    const llama::Config& config() const override { return model_.config(); }

    void enter(Index block) override {
        number_ = block;
        block_ = loader_.take(block);
        reference_weights_.clear();
        for (const auto& layer : block_.layers) reference_weights_.push_back(layer.weight.view());
        weights_.assign(block_.layers.size(), {});
        narrow_.clear();
        narrow_.resize(block_.layers.size());
        solved_.clear();
        solved_.resize(block_.layers.size());
        reference_runner_.enter(block_, reference_);
        runner_.enter(block_, quantized_);
    }

    Index accumulate(const Readers&, const Kinds& kinds) override {
        accumulate(kinds);
        return windows_.tokens();
    }

    residua::Report solve(const std::string& method, std::size_t layer) override {
        const auto weights = block_.layers[layer].weight.exact(gpu());
        if (model_.solver().is_alone()) {
            DeviceQuantized q = model_.solver().solve_here(method, weights.view());
            const residua::Report report = q.report;
            if (q) adopt(layer, std::move(q));
            return report;
        }
        SolvedLayer solved = model_.solver().solve(method, weights.view());
        if (solved.report.status == residua::Status::Success) adopt(layer, to_device(gpu(), solved.layer));
        return std::move(solved.report);
    }

    void put(std::size_t layer, StoredLayer quantized) override {
        adopt(layer, to_device(gpu(), quantized.integers));
    }

    std::array<double, 2> output_errors(std::size_t layer) override {
        constexpr Index rows_at_once = 8192;
        const Index tokens = windows_.start(selection_.samples);
        const Index out = weights_[layer].rows;
        const Index steps = (tokens + rows_at_once - 1) / rows_at_once;
        const auto& bias = block_.layers[layer].bias;
        auto y = gpu().allocate<float>(std::min(tokens, rows_at_once), out);
        auto sums = gpu().allocate<double>(2 * steps, llama::cuda::square_blocks);
        for (Index step = 0; step < steps; ++step) {
            const Index first = step * rows_at_once;
            const Index count = std::min(rows_at_once, tokens - first);
            const auto part = y.view().row_range(0, count);
            const auto inputs = [&](const llama::cuda::DeviceActivations& a) {
                return a.input.view().row_range(first, count);
            };
            runner_.apply(bias, inputs(reference_), reference_weights_[layer], part);
            llama::cuda::squares(gpu().stream(), part.data, count * out, sums.view().row(2 * step + 1));
            runner_.apply(bias, inputs(quantized_), weights_[layer], part, -1.0f);
            llama::cuda::squares(gpu().stream(), part.data, count * out, sums.view().row(2 * step));
        }
        std::array<double, 2> total{};
        const std::vector<double> parts = gpu().read(sums.view());
        for (std::size_t i = 0; i < parts.size(); ++i) total[i / llama::cuda::square_blocks % 2] += parts[i];
        return total;
    }

    void advance(llama::Input input) override {
        reference_runner_.advance(input, block_, reference_weights_, reference_windows_, reference_);
        runner_.advance(input, block_, weights_, windows_, quantized_);
    }

    std::shared_future<std::shared_ptr<const QuantizedBlock>> leave() override {
        await_leaving();
        leaving_layers_ = std::move(solved_);
        llama::cuda::order(gpu().stream(), leaving_stream_.get());
        leaving_ = std::async(std::launch::async, [this, device = llama::cuda::current_device()] {
                       residua::detail::cuda::check(cudaSetDevice(device), "cudaSetDevice");
                       return to_host();
                   }).share();
        model_.set_quantized(number_, leaving_);
        return leaving_;
    }

    residua::NormGains<float> fit_final_norm() override {
        reference_runner_.leave(model_.norm(), reference_);
        runner_.leave(model_.norm(), quantized_);
        accumulate({.reference = true});
        const auto head = model_.head().exact(gpu());
        const auto gains = model_.solver().final_norm_gains(head.view());
        if (gains) model_.scale_norm(gains.values);
        return gains;
    }

  private:
    static constexpr Index batch_tokens = 16384;

    residua::CudaBackend& gpu() const { return model_.gpu(); }

    std::vector<std::vector<llama::Token>> selected(const llama::Windows& windows, Index count) const {
        std::vector<std::vector<llama::Token>> part;
        for (Index i = 0; i < count; ++i)
            part.push_back(windows[std::size_t(selection_.windows[std::size_t(i)])]);
        return part;
    }

    void accumulate(const Kinds& kinds) {
        model_.solver().start(quantized_.input.cols());
        Index first_window = 0;
        for (std::size_t s = 0; s < selection_.ends.size(); ++s) {
            const Index end = windows_.start(selection_.ends[s]);
            for (Index first = windows_.start(first_window); first < end; first += batch_tokens)
                accumulate(first_segment_ + Index(s), first, std::min(batch_tokens, end - first), kinds);
            first_window = selection_.ends[s];
        }
    }

    void accumulate(Index segment, Index first, Index count, const Kinds& kinds) {
        const auto inputs = [&](const llama::cuda::DeviceActivations& a) {
            return a.input.view().row_range(first, count);
        };
        const Index width = kinds.stream ? config().hidden : 0;
        auto h = gpu().allocate<residua::bfloat16>(count, width);
        auto h_fp = gpu().allocate<residua::bfloat16>(count, width);
        TokenBatch<residua::bfloat16> batch{.segment = segment, .x = inputs(std::as_const(quantized_))};
        if (kinds.reference) batch.x_fp = inputs(std::as_const(reference_));
        if (kinds.stream) {
            const auto narrow = [&](const llama::cuda::DeviceActivations& a, auto& to) {
                llama::cuda::for_eights(
                    gpu().stream(), count, width,
                    llama::cuda::Narrow{a.residual.view().row_range(first, count), to.view()});
            };
            narrow(quantized_, h);
            narrow(reference_, h_fp);
            batch.stream = {std::as_const(h).view(), std::as_const(h_fp).view()};
        }
        model_.solver().accumulate(batch);
    }

    /// Puts a layer into the quantized model.
    void adopt(std::size_t layer, DeviceQuantized q) {
        narrow_[layer] = dequantized(gpu(), q);
        weights_[layer] = std::as_const(narrow_[layer]).view();
        solved_[layer] = std::move(q);
    }

    void await_leaving() {
        if (leaving_.valid()) leaving_.wait();
    }

    /// The layers that leave, on a stream of their own.
    std::shared_ptr<const QuantizedBlock> to_host() const {
        const auto read = [&](const auto& matrix, auto& to) {
            to.resize(std::size_t(matrix.size()));
            residua::detail::cuda::check(
                cudaMemcpyAsync(to.data(), matrix.view().data, to.size() * sizeof(to[0]),
                                cudaMemcpyDeviceToHost, leaving_stream_.get()),
                "cudaMemcpyAsync");
        };
        auto block = std::make_shared<QuantizedBlock>();
        for (const DeviceQuantized& q : leaving_layers_) {
            auto& layer = block->emplace_back().integers;
            layer.rows = q.codes.rows();
            layer.cols = q.codes.cols();
            layer.groups = q.scales.cols();
            layer.group_index = q.group_index;
            layer.grid = q.grid;
            read(q.codes, layer.codes);
            read(q.scales, layer.scales);
            read(q.zeros, layer.zeros);
        }
        residua::detail::cuda::check(cudaStreamSynchronize(leaving_stream_.get()), "cudaStreamSynchronize");
        return block;
    }

    CudaModel& model_;
    Index first_segment_;
    Selection selection_;
    llama::cuda::DeviceRunner reference_runner_, runner_;
    llama::cuda::DeviceWindows reference_windows_, windows_;
    llama::cuda::DeviceActivations reference_, quantized_;
    llama::cuda::BlockLoader loader_;
    Index number_ = 0;
    llama::cuda::DeviceBlock block_;
    llama::cuda::BlockWeights reference_weights_, weights_;
    std::vector<residua::DeviceMatrix<residua::bfloat16>> narrow_;  // quantized weights
    std::vector<DeviceQuantized> solved_;
    residua::detail::cuda::Stream leaving_stream_;
    std::vector<DeviceQuantized> leaving_layers_;
    std::shared_future<std::shared_ptr<const QuantizedBlock>> leaving_;
};
