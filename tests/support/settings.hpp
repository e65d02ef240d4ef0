#pragma once

#include <array>
#include <ostream>
#include <sstream>
#include <string>

#include "support/layer.hpp"

/// Settings drawn at random from lists that hold every choice and the awkward sizes.
namespace residua::test {

struct Setting {
    LayerShape shape;
    SolverOptions options;
    IntegerGrid grid;
    bool has_stream = false;  ///< moments with the residual stream

    std::string text() const {
        std::ostringstream out;
        out << shape.out << " x " << shape.in << ", " << shape.tokens << " tokens, " << shape.dead.size()
            << " dead, seed " << shape.seed << ", group_size " << options.group_size << ", block_size "
            << options.block_size << ", ordering " << int(options.ordering) << ", static "
            << options.static_groups << ", view " << int(options.published.view) << ", scales "
            << int(options.published.scales) << ", damping " << options.damping.initial << ", bits "
            << grid.bits << ", symmetry " << int(grid.symmetry) << ", clip " << grid.clip.enabled
            << ", search " << int(grid.clip.search) << ", survivors " << grid.clip.survivors
            << ", scale type " << int(grid.scale_type) << ", stream " << has_stream << " by "
            << options.stream_alpha;
        return out.str();
    }
};

inline Setting random_setting(std::uint64_t seed) {
    Random random(seed);
    const auto pick = [&](const auto& choices) { return choices[random.bits() % choices.size()]; };
    using Shape = std::array<Index, 2>;
    constexpr std::array shapes = {Shape{1, 1},   Shape{1, 7},   Shape{3, 1},   Shape{2, 5},
                                   Shape{5, 16},  Shape{16, 33}, Shape{33, 64}, Shape{17, 70},
                                   Shape{9, 128}, Shape{64, 65}, Shape{4, 129}, Shape{70, 200}};
    constexpr std::array<Index, 8> group_sizes = {-1, 1, 3, 16, 32, 50, 128, 300};
    constexpr std::array<Index, 6> block_sizes = {1, 7, 32, 64, 128, 1000};

    Setting s;
    const Shape shape = pick(shapes);
    s.shape = {shape[0], shape[1], 2 * shape[1] + 3, {}, seed};
    if (shape[1] > 2 && random.bits() % 3 == 0) s.shape.dead = {0, shape[1] / 2, shape[1] - 1};
    s.options.max_dead_inputs = 1;
    s.options.group_size = pick(group_sizes);
    s.options.block_size = pick(block_sizes);
    s.options.ordering = pick(std::array{Ordering::Natural, Ordering::Activation, Ordering::GroupAware});
    s.options.static_groups = pick(std::array{false, true});
    s.options.published.view =
        pick(std::array{ResidualView::Compensated, ResidualView::Quantized, ResidualView::Clamped});
    s.options.published.scales = pick(std::array{GroupScales::Current, GroupScales::Stale});
    s.options.damping.initial = pick(std::array{0.01, 0.1, 1.0});
    s.grid.bits = pick(std::array{2, 3, 4, 8});
    s.grid.symmetry = pick(std::array{Symmetry::None, Symmetry::Restricted, Symmetry::FullRange});
    s.grid.clip.enabled = random.bits() % 3 == 0;
    s.grid.scale_type = pick(std::array{ScaleType::Float32, ScaleType::Float16, ScaleType::BFloat16});
    s.has_stream = random.bits() % 3 == 0;
    s.options.stream_alpha = pick(std::array{0.5, 1.0});
    if (random.bits() % 3 == 0) {
        s.grid.clip.enabled = true;
        s.grid.clip.search = ScaleSearch::Loss;
        s.grid.clip.survivors = pick(std::array{1, 3, 8, 50});
    }
    return s;
}

}  // namespace residua::test
