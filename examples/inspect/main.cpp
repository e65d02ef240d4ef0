/// Shows what a quantized file holds, and dequantizes one of its layers.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "../support/command_line.hpp"
#include "../support/output_file.hpp"
#include "../support/text.hpp"
#include "quantized_file.hpp"

namespace {

struct Settings {
    std::string input, dequantize, output;
};

/// How often each code occurs, as columns from the lowest value to the highest; neighbours share a column
/// beyond 64 codes.
template <class G>
void plot_codes(const residua::QuantizedLayer<G>& layer) {
    constexpr int height = 8;
    const int levels = layer.grid.levels();
    std::vector<double> share(static_cast<std::size_t>(levels), 0);
    for (const residua::Code code : layer.codes) share[code] += 1.0 / static_cast<double>(layer.codes.size());

    std::vector<int> by_value(share.size());
    std::iota(by_value.begin(), by_value.end(), 0);
    const auto value = [&](int code) { return layer.grid.decode(code, residua::GridParams<float>{1, 1}); };
    std::ranges::stable_sort(by_value, {}, value);
    const std::size_t merged = (share.size() + 63) / 64;
    std::vector<double> columns((share.size() + merged - 1) / merged, 0);
    for (std::size_t i = 0; i < share.size(); ++i)
        columns[i / merged] += share[static_cast<std::size_t>(by_value[i])];

    const double largest = *std::max_element(columns.begin(), columns.end());
    for (int line = height; line > 0; --line) {
        std::string text;
        for (const double part : columns) text += part * height >= largest * (line - 0.5) ? '#' : ' ';
        std::printf("    %6.2f %% |%s\n", 100 * largest * line / height, text.c_str());
    }
    std::printf("             +%s\n", std::string(columns.size(), '-').c_str());
    std::printf("              %d codes, lowest value to highest\n", levels);
}

template <class G>
void describe(const char* format, const residua::QuantizedLayer<G>& layer) {
    int bits = 0;
    while ((1 << bits) < layer.grid.levels()) ++bits;
    const auto [least, largest] = std::minmax_element(layer.scales.begin(), layer.scales.end());
    std::printf("%s, %td x %td, %d bits, %td groups of %td columns%s\n", format, layer.rows, layer.cols, bits,
                layer.groups, layer.grouping().size, layer.grouping().is_sequential ? "" : ", scattered");
    std::printf("    scales from %g to %g\n", double(*least), double(*largest));
    plot_codes(layer);
}

/// Whether all that was to be shown could be.
template <class File>
bool run(const Settings& settings, const File& file) {
    if (!settings.dequantize.empty()) {
        file.visit(settings.dequantize, [&](const char*, const auto& layer) {
            const residua::Matrix<float> values = layer.dequantize();
            const std::span elements(values.data(), static_cast<std::size_t>(values.rows() * values.cols()));
            residua::io::write_safetensors(
                settings.output,
                {residua::io::tensor_of(settings.dequantize, {values.rows(), values.cols()}, elements)});
        });
        return true;
    }
    for (const ListedTensor& tensor : file.tensors())
        std::printf("%-8s %-20s %s\n", tensor.type.c_str(), tensor.shape.c_str(),
                    printable(tensor.name).c_str());
    bool all_shown = true;
    for (const std::string& name : file.layers()) {
        std::printf("\n%s: ", printable(name).c_str());
        try {
            file.visit(name, [&](const char* format, const auto& layer) { describe(format, layer); });
        } catch (const std::exception& error) {  // of this layer; others may be well
            std::printf("not shown: %s\n", error.what());
            all_shown = false;
        }
    }
    return all_shown;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Shows what a quantized file holds: GPTQ, compressed-tensors or GGUF.", "inspect");
    Settings settings;
    app.add_option("file", settings.input, "safetensors file, index or folder, or GGUF file")->required();
    auto* output = app.add_option("--output", settings.output, "file to write, float32 safetensors");
    bool overwrite = false;
    app.add_flag("--overwrite", overwrite, "replace a file of the output's name")->needs(output);
    auto* dequantize = app.add_option("--dequantize", settings.dequantize, "layer to dequantize");
    dequantize->needs(output);
    output->needs(dequantize);
    return exit_code_of(app, [&] {
        parse_arguments(app, argc, argv);
        if (!settings.output.empty()) {
            const std::filesystem::path input = settings.input;
            require_new_file("--output", settings.output, overwrite);
            require_apart("--output", settings.output,
                          {input.extension() == ".json" ? input.parent_path() : input});
        }
        const bool all_shown = settings.input.ends_with(".gguf")
                                   ? run(settings, QuantizedGGUF(settings.input))
                                   : run(settings, QuantizedCheckpoint(settings.input));
        finish_stdout();
        return all_shown ? 0 : 1;
    });
}
