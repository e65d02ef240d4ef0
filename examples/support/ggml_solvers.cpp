#include "ggml_solvers.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <residua/io/gguf/blocks.hpp>
#include <residua/io/gguf/super_blocks.hpp>

using namespace residua;
using residua::io::GGMLType;

namespace {

constexpr std::array solved_types = {GGMLType::Q4_0, GGMLType::Q4_1, GGMLType::Q5_0,   GGMLType::Q5_1,
                                     GGMLType::Q8_0, GGMLType::Q2_K, GGMLType::Q3_K,   GGMLType::Q4_K,
                                     GGMLType::Q5_K, GGMLType::Q6_K, GGMLType::IQ4_NL, GGMLType::IQ4_XS,
                                     GGMLType::MXFP4};

std::string format_of(GGMLType type) {
    std::string name = "gguf-" + name_of(type);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
}

/// f(grid)
template <class F>
auto with_grid_of(GGMLType type, const ClipSearch& clip, F f) {
    switch (type) {
        case GGMLType::Q4_0:
            return f(Q4_0Grid{clip});
        case GGMLType::Q4_1:
            return f(Q4_1Grid{clip});
        case GGMLType::Q5_0:
            return f(Q5_0Grid{clip});
        case GGMLType::Q5_1:
            return f(Q5_1Grid{clip});
        case GGMLType::Q8_0:
            return f(Q8_0Grid{clip});
        case GGMLType::Q2_K:
            return f(KQuantGrid<16>{.bits = 2, .clip = clip});
        case GGMLType::Q3_K:
            return f(KQuantGrid<16>{.bits = 3, .clip = clip});
        case GGMLType::Q4_K:
            return f(KQuantGrid<32>{.bits = 4, .clip = clip});
        case GGMLType::Q5_K:
            return f(KQuantGrid<32>{.bits = 5, .clip = clip});
        case GGMLType::Q6_K:
            return f(KQuantGrid<16>{.bits = 6, .clip = clip});
        case GGMLType::IQ4_NL:
            return f(IQ4Grid{.nested = false, .clip = clip});
        case GGMLType::IQ4_XS:
            return f(IQ4Grid{.nested = true, .clip = clip});
        case GGMLType::MXFP4:
            return f(MXFP4Grid{clip});
        default:
            reject("a type to solve onto is", name_of(type), "one of ggml_format_names()");
    }
}

/// f(grid) for the grid of `format`, fitted to `weights` where it has a scale for all of them.
template <class F>
auto with_grid_of(FloatFormat format, const ClipSearch& clip, compiled::Values weights, F f) {
    if (format == FloatFormat::NVFP4) return f(NVFP4Grid::for_weights(weights, clip));
    if (format == FloatFormat::MXFP4) return f(MXFP4Grid{clip});
    return f(NF4Grid{.clip = clip});
}

std::vector<StoredTensor> packed(const QuantizedLayer<NVFP4Grid>& layer) {
    return stored_tensors(io::pack_nvfp4(layer));
}
std::vector<StoredTensor> packed(const QuantizedLayer<MXFP4Grid>& layer) {
    return stored_tensors(io::pack_mxfp4(layer));
}
std::vector<StoredTensor> packed(const QuantizedLayer<NF4Grid>& layer) {
    return stored_tensors(io::pack_nf4(layer));
}

/// By "gptq" or "qep". Activation order fits all grids beforehand, for groups are neighbours in the file.
template <class G>
compiled::Quantized<compiled::Cpu, G> solve_onto(const std::string& method,
                                                 const compiled::Moments<compiled::Cpu>& moments,
                                                 const SolveSettings& settings, Index group_size,
                                                 compiled::Values weights, const G& grid) {
    SolverOptions options = settings.options;
    options.static_groups = options.static_groups || options.ordering == Ordering::Activation;
    options.group_size = group_size;
    if (method == "gptq")
        return compiled::Solver<GPTQ, compiled::Cpu>(moments, options).quantize(weights, grid);
    require(method == "qep", "method is", method, "gptq or qep for blocks");
    const QEP qep = settings.with_coefficients(QEP{});
    return compiled::Solver<QEP, compiled::Cpu>(moments, options, qep).quantize(weights, grid);
}

template <class G>
compiled::Quantized<compiled::Cpu, G> round_onto(compiled::Cpu& backend, Index group_size,
                                                 compiled::Values weights, const G& grid,
                                                 const compiled::Moments<compiled::Cpu>* moments) {
    auto q = residua::round_weights<float>(backend, weights, grid, group_size);
    if (q && moments) q.report.objective = residua::objective(*moments, weights, q);
    return q;
}

/// pack(solved, layer) fills in what is stored.
template <class G, class Pack>
SolvedBlocks stored(compiled::Cpu& backend, const compiled::Quantized<compiled::Cpu, G>& q, Pack pack) {
    SolvedBlocks solved{.report = q.report};
    if (!q) return solved;
    const QuantizedLayer<G> layer = q.to_host(backend);
    solved.weights = layer.dequantize();
    pack(solved, layer);
    return solved;
}

constexpr auto in_blocks = []<class G>(SolvedBlocks& solved, const QuantizedLayer<G>& layer) {
    if constexpr (TwoLevelGrid<G, float>) {
        solved.blocks = io::pack_super_blocks(layer);
    } else {
        solved.blocks = io::ggml_matrix(layer);
    }
};
constexpr auto in_tensors = [](SolvedBlocks& solved, const auto& layer) { solved.tensors = packed(layer); };

}  // namespace

std::vector<std::string> ggml_format_names() {
    std::vector<std::string> names;
    for (const GGMLType type : solved_types) names.push_back(format_of(type));
    return names;
}

bool has_grid(GGMLType type) {
    return std::find(solved_types.begin(), solved_types.end(), type) != solved_types.end();
}

GGMLType ggml_type_named(const std::string& format) {
    for (const GGMLType type : solved_types) {
        if (format_of(type) == format) return type;
    }
    reject("--format is", format, "the name of a type of GGUF files");
}

GGMLType ggml_type_for(GGMLType type, Index cols) {
    const auto fits = [&](GGMLType t) { return cols % io::detail::facts_of(t)->elements == 0; };
    if (fits(type)) return type;
    GGMLType next = GGMLType::F16;
    if (type == GGMLType::Q2_K || type == GGMLType::Q3_K) next = GGMLType::Q4_0;
    if (type == GGMLType::IQ4_XS) next = GGMLType::IQ4_NL;
    if (type == GGMLType::Q4_K) next = GGMLType::Q5_0;
    if (type == GGMLType::Q5_K) next = GGMLType::Q5_1;
    if (type == GGMLType::Q6_K) next = GGMLType::Q8_0;
    return fits(next) ? next : GGMLType::F16;
}

void announce_replacement(GGMLType asked, GGMLType type, Index cols) {
    std::fprintf(stderr, "rows of %td weights are no whole blocks of %s: %s in its place\n", cols,
                 name_of(asked).c_str(), name_of(type).c_str());
}

void require_group_size_of(GGMLType type, Index requested) {
    with_grid_of(type, {}, [&]<class G>(const G&) { (void)resolve_group_size<G>(requested); });
}

std::optional<FloatFormat> float_format_named(const std::string& name) {
    if (name == "nvfp4") return FloatFormat::NVFP4;
    if (name == "mxfp4") return FloatFormat::MXFP4;
    if (name == "nf4") return FloatFormat::NF4;
    return {};
}

Index resolve_group_size(FloatFormat format, Index requested) {
    if (format == FloatFormat::NVFP4) return resolve_group_size<NVFP4Grid>(requested);
    if (format == FloatFormat::MXFP4) return resolve_group_size<MXFP4Grid>(requested);
    if (requested == SolverOptions::grid_default) return 64;
    const bool is_block = requested >= 64 && requested <= 4096 && (requested & (requested - 1)) == 0;
    require(is_block, "NF4: the group size is", requested,
            "64, 128, 256, 512, 1024, 2048 or 4096, the blocks of bitsandbytes");
    return requested;
}

nlohmann::json quantization_config(FloatFormat format, const std::vector<std::string>& ignore) {
    if (format == FloatFormat::NF4) return io::NF4Layer::config(ignore);
    return io::FP4Layer{.is_nvfp4 = format == FloatFormat::NVFP4}.config(ignore);
}

namespace compiled {

SolvedBlocks solve_onto_blocks(const std::string& method, const Moments<Cpu>& moments,
                               const SolveSettings& settings, GGMLType type, Values weights) {
    return with_grid_of(type, settings.grid.clip, [&](const auto& grid) {
        return stored(moments.backend(),
                      solve_onto(method, moments, settings, SolverOptions::grid_default, weights, grid),
                      in_blocks);
    });
}

SolvedBlocks round_onto_blocks(Cpu& backend, const SolveSettings& settings, GGMLType type, Values weights,
                               const Moments<Cpu>* moments) {
    return with_grid_of(type, settings.grid.clip, [&](const auto& grid) {
        return stored(backend, round_onto(backend, SolverOptions::grid_default, weights, grid, moments),
                      in_blocks);
    });
}

SolvedBlocks solve_onto_blocks(const std::string& method, const Moments<Cpu>& moments,
                               const SolveSettings& settings, FloatFormat format, Values weights) {
    const Index group_size = resolve_group_size(format, settings.options.group_size);
    return with_grid_of(format, settings.grid.clip, weights, [&](const auto& grid) {
        return stored(moments.backend(), solve_onto(method, moments, settings, group_size, weights, grid),
                      in_tensors);
    });
}

SolvedBlocks round_onto_blocks(Cpu& backend, const SolveSettings& settings, FloatFormat format,
                               Values weights, const Moments<Cpu>* moments) {
    const Index group_size = resolve_group_size(format, settings.options.group_size);
    return with_grid_of(format, settings.grid.clip, weights, [&](const auto& grid) {
        return stored(backend, round_onto(backend, group_size, weights, grid, moments), in_tensors);
    });
}

}  // namespace compiled
