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
                                     GGMLType::Q5_K, GGMLType::Q6_K, GGMLType::IQ4_NL, GGMLType::IQ4_XS};

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
        default:
            reject("a type to solve onto is", name_of(type), "one of ggml_format_names()");
    }
}

template <class G>
SolvedBlocks in_blocks(compiled::Cpu& backend, const compiled::Quantized<compiled::Cpu, G>& q) {
    SolvedBlocks solved{.report = q.report};
    if (!q) return solved;
    const QuantizedLayer<G> layer = q.to_host(backend);
    solved.weights = layer.dequantize();
    if constexpr (TwoLevelGrid<G, float>) {
        solved.blocks = io::pack_super_blocks(layer);
    } else {
        solved.blocks = io::ggml_matrix(layer);
    }
    return solved;
}

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

namespace compiled {

SolvedBlocks solve_onto_blocks(const std::string& method, const Moments<Cpu>& moments,
                               const SolveSettings& settings, GGMLType type, Values weights) {
    SolverOptions options = settings.options;
    options.static_groups = options.static_groups || options.ordering == Ordering::Activation;
    options.group_size = SolverOptions::grid_default;
    return with_grid_of(type, settings.grid.clip, [&](const auto& grid) {
        Cpu& backend = moments.backend();
        if (method == "gptq")
            return in_blocks(backend, Solver<GPTQ, Cpu>(moments, options).quantize(weights, grid));
        require(method == "qep", "method is", method, "gptq or qep for the blocks of GGUF");
        const QEP qep = settings.with_coefficients(QEP{});
        return in_blocks(backend, Solver<QEP, Cpu>(moments, options, qep).quantize(weights, grid));
    });
}

SolvedBlocks round_onto_blocks(Cpu& backend, const SolveSettings& settings, GGMLType type, Values weights,
                               const Moments<Cpu>* moments) {
    return with_grid_of(type, settings.grid.clip, [&](const auto& grid) {
        auto q = residua::round_weights<float>(backend, weights, grid);
        if (q && moments) q.report.objective = residua::objective(*moments, weights, q);
        return in_blocks(backend, q);
    });
}

}  // namespace compiled
