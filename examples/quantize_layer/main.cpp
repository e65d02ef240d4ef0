/// Quantizes one linear layer with every method and shows which is best on tokens that were held back.
///
///     settings.hpp, .cpp    the command line
///     layer.hpp             the input file
///     experiment.hpp, .cpp  what is quantized and measured
///     methods.hpp           every method, onto any grid
///     integer_formats.cpp   integers, and the files that hold them
///     block_formats.cpp     the blocks of GGUF, NVFP4, MXFP4 and NF4
///     cuda.cu               --device cuda

#include <iostream>

#include "../support/command_line.hpp"
#include "../support/layer_record.hpp"
#include "../support/output_file.hpp"
#include "methods.hpp"

namespace {

nlohmann::json to_json(const Row& row) {
    return {{"method", row.method},
            {"status", row.status},
            {"objective", number_or_null(row.objective)},
            {"relative_output_error", number_or_null(row.relative_output_error)},
            {"accumulate_seconds", row.accumulate_seconds},
            {"solve_seconds", row.solve_seconds}};
}

void print(const std::vector<Row>& rows, bool json) {
    if (json) {
        nlohmann::json table = nlohmann::json::array();
        for (const Row& row : rows) table.push_back(to_json(row));
        std::cout << table.dump(2) << '\n';
        return;
    }
    std::printf("%-14s %14s %22s %10s  %s\n", "method", "objective", "relative output error", "seconds",
                "status");
    for (const Row& row : rows) {
        std::printf("%-14s %14.6g %22.6f %10.4f  %s\n", row.method.c_str(), row.objective,
                    row.relative_output_error, row.solve_seconds, row.status.c_str());
    }
}

int run(const Settings& settings) {
    const Layer layer = read_layer(settings.input);
    Cpu backend(settings.threads > 0 ? residua::Executor(settings.threads) : residua::Executor());
    Experiment experiment(backend, layer, settings);
    std::fprintf(stderr, "%s: %td x %td, %td tokens to calibrate on, %td held back%s\n",
                 settings.input.c_str(), layer.out, layer.in, experiment.calibration_tokens(),
                 experiment.held_tokens(), layer.x_fp ? "" : ", no reference inputs");
    if (experiment.held_tokens() == 0)
        std::fprintf(stderr, "output errors are those of the calibration tokens\n");

    const Result result = settings.is_block_format() ? quantize_to_blocks(experiment, layer, settings)
                                                     : quantize_to_integers(experiment, settings, backend);
    print(result.rows, settings.json);
    return result.failed || (result.degraded && !settings.allow_degraded) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Quantizes one linear layer and measures the error of its output.", "quantize_layer");
    return exit_code_of(app, [&] {
        const int code = run(parse_settings(app, argc, argv));
        finish_stdout();
        return code;
    });
}
