#include "matrix_quantizer.hpp"

#include <chrono>

#include "../../support/degradation.hpp"

using namespace residua;

MatrixQuantizer::MatrixQuantizer(std::string method, SolveSettings settings, int threads)
    : method_(std::move(method)),
      settings_(std::move(settings)),
      executor_(threads > 0 ? Executor(threads) : Executor()),
      backend_(executor_) {}

MatrixInFile MatrixQuantizer::operator()(const GGUFIndex::Tensor& tensor, Index matrix,
                                         compiled::Values weights, const Moments& moments) {
    const auto start = std::chrono::steady_clock::now();
    MatrixInFile result{.bytes = {},
                        .record = {.tensor = tensor.name,
                                   .matrix = matrix,
                                   .type = ggml_type_name(tensor.type),
                                   .method = method_,
                                   .tokens = moments.tokens()}};
    Record& record = result.record;
    const auto type = static_cast<io::GGMLType>(tensor.type);
    if (has_grid(type)) {
        SolvedBlocks solved = method_ == "rtn"
                                  ? compiled::round_onto_blocks(backend_, settings_, type, weights, &moments)
                                  : compiled::solve_onto_blocks(method_, moments, settings_, type, weights);
        const Report& report = solved.report;
        if (!solved)
            throw std::runtime_error("residua: " + tensor.name + ": " +
                                     std::string(to_string(report.status)) + ", damping " +
                                     std::to_string(report.damping) + ", dead inputs " +
                                     std::to_string(report.dead_columns.size()));
        const Degradation degradation = Degradation::of(report);
        record.objective = report.achieved().value_or(NAN);
        record.rounding = degradation.rounding;
        record.degradation = degradation.text();
        result.bytes = std::move(solved.blocks.bytes);
    } else {
        record.method = "ggml";
        result.bytes = by_ggml(tensor.type, weights, moments);
    }
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

std::vector<std::byte> MatrixQuantizer::by_ggml(ggml_type type, compiled::Values weights,
                                                const Moments& moments) {
    const MatrixView<const float> gram = moments.gram();
    std::vector<float> importance;
    for (Index j = 0; j < weights.cols; ++j) importance.push_back(gram(j, j) / float(moments.tokens()));
    const std::size_t row = ggml_row_size(type, weights.cols);
    std::vector<std::byte> bytes(row * static_cast<std::size_t>(weights.rows));
    ggml_quantize_init(type);
    executor_(weights.rows, [&](Index r) {
        ggml_quantize_chunk(type, weights.row(r), bytes.data() + static_cast<std::size_t>(r) * row, 0, 1,
                            weights.cols, importance.data());
    });
    return bytes;
}

double MatrixQuantizer::memory_for(double rows, double cols) {
    return sizeof(float) * (3 * cols * cols + 5 * rows * cols);
}
