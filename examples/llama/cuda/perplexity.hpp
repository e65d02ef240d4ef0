#pragma once

#include "../perplexity.hpp"
#include "loss.cuh"
#include "runner.hpp"

namespace llama::cuda {

/// (tokens, vocabulary) for rows [first, first + count) of what the output layer reads, see DeviceRunner::leave().
inline DeviceMatrix<float> logits(CudaBackend& gpu, const DeviceRunner& runner,
                                  MatrixView<const bfloat16> head, const DeviceActivations& a, Index first,
                                  Index count) {
    auto values = gpu.allocate<float>(count, head.rows);
    runner.multiply(a.input.view().row_range(first, count), head, values.view());
    return values;
}

/// Over all windows, which have come through the last norm; see llama::loss().
inline Loss loss(CudaBackend& gpu, const DeviceRunner& runner, MatrixView<const bfloat16> head,
                 const DeviceWindows& windows, const DeviceActivations& a) {
    constexpr Index most_logits = Index(1) << 28;
    const Index tokens = windows.tokens();
    const Index rows = std::clamp<Index>(most_logits / head.rows, 1, std::max<Index>(1, tokens));
    auto losses = gpu.allocate<float>(1, tokens);
    for (Index first = 0; first < tokens; first += rows) {
        const Index count = std::min(rows, tokens - first);
        const auto values = logits(gpu, runner, head, a, first, count);
        loss(gpu.stream(), values.view(), windows.token_data() + first + 1, losses.view().data + first);
    }
    const std::vector<float> values = gpu.read(losses.view());
    Loss total;
    for (Index w = 0; w < windows.count(); ++w) {
        for (Index t = windows.start(w); t + 1 < windows.start(w + 1); ++t)
            total.sum += double(values[std::size_t(t)]);
        total.predictions += double(windows.start(w + 1) - windows.start(w)) - 1;
    }
    return total;
}

}  // namespace llama::cuda
