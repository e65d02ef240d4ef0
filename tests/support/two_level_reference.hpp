#pragma once

// The reference's twin of two-level grids: the formats' tables of values, a textbook least-squares fit for each guess,
// and the search for the numbers that a family shares, all in plain loops.

#include "residua/grids/k_quant_grid.hpp"
#include "support/reference.hpp"

namespace residua::reference {

struct TwoLevel {
    std::vector<double> levels;  ///< w ~ scale levels[code] + zero
    bool minimum;
    double lowest, highest;       ///< codes of scales
    std::vector<double> offsets;  ///< of the guesses, in levels, in the order of the grid
    ClipSearch clip = {};
};

inline std::vector<double> offsets(int from, int to, double step) {
    std::vector<double> all;
    for (int i = from; i <= to; ++i) all.push_back(step * i);
    return all;
}

inline TwoLevel facts_of(int bits) {
    TwoLevel facts;
    facts.minimum = bits == 2 || bits == 4 || bits == 5;
    for (int code = 0; code < 1 << bits; ++code)
        facts.levels.push_back(code - (facts.minimum ? 0.0 : std::ldexp(1.0, bits - 1)));
    facts.lowest = bits == 3 ? -32 : bits == 6 ? -128 : 0;
    facts.highest = bits == 2 ? 15 : bits == 3 ? 31 : bits == 6 ? 127 : 63;
    facts.offsets = facts.minimum ? offsets(-18, 18, 0.0495) : offsets(-9, 9, -0.099);
    return facts;
}
template <int Columns>
TwoLevel facts_of(const KQuantGrid<Columns>& grid) {
    TwoLevel facts = facts_of(grid.bits);
    facts.clip = grid.clip;
    return facts;
}
inline TwoLevel facts_of(const IQ4Grid& grid) {
    TwoLevel facts;
    facts.levels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    facts.minimum = false;
    facts.lowest = grid.nested ? -32 : 1;
    facts.highest = grid.nested ? 31 : 1;
    facts.offsets = offsets(-7, 7, -1);
    facts.clip = grid.clip;
    return facts;
}

inline int nearest_level(const TwoLevel& facts, double x, const Params& p) {
    const double level = p.scale == 0 ? 0 : (x - p.zero) / p.scale;
    std::size_t best = 0;
    for (std::size_t i = 1; i < facts.levels.size(); ++i)
        if (std::abs(facts.levels[i] - level) < std::abs(facts.levels[best] - level)) best = i;
    return static_cast<int>(best);
}

inline int encode(double x, const Params& p, const TwoLevel& facts) { return nearest_level(facts, x, p); }
inline double decode(int code, const Params& p, const TwoLevel& facts) {
    return p.scale * facts.levels[static_cast<std::size_t>(code)] + p.zero;
}
template <class Grid>
int encode(double x, const Params& p, const Grid& grid) {
    return encode(x, p, facts_of(grid));
}
template <class Grid>
double decode(int code, const Params& p, const Grid& grid) {
    return decode(code, p, facts_of(grid));
}
/// The normal equations of one group, for the codes of a guess.
inline Params least_squares(const TwoLevel& facts, const std::vector<double>& x,
                            const std::vector<double>& weights, const Params& guess) {
    double w = 0, wx = 0, wl = 0, wll = 0, wlx = 0;
    int lowest = 1000, highest = -1;
    for (std::size_t k = 0; k < x.size(); ++k) {
        const int code = nearest_level(facts, x[k], guess);
        const double level = facts.levels[static_cast<std::size_t>(code)];
        lowest = std::min(lowest, code);
        highest = std::max(highest, code);
        w += weights[k];
        wx += weights[k] * x[k];
        wl += weights[k] * level;
        wll += weights[k] * level * level;
        wlx += weights[k] * level * x[k];
    }
    const Params without_minimum = {wll > 0 ? wlx / wll : 0, 0};
    if (!facts.minimum) return without_minimum;
    if (lowest == highest) return guess;
    const double zero = (wx - wlx * wl / wll) / (w - wl * wl / wll);
    return zero > 0 ? without_minimum : Params{(wlx - zero * wl) / wll, zero};
}

inline Params guess_of(const TwoLevel& facts, const std::vector<double>& x, double offset) {
    double low = 0, high = 0;
    for (const double value : x) low = std::min(low, value);
    for (const double value : x) high = std::max(high, value);
    const double extreme = high > -low ? high : low;
    return facts.minimum ? Params{(high - low) / (facts.levels.back() + offset), low}
                         : Params{extreme / (facts.levels.front() - offset), 0};
}

inline Params fit_alone(const TwoLevel& facts, const std::vector<double>& x,
                        const std::vector<double>& weights) {
    Params best;
    double least = std::numeric_limits<double>::infinity();
    for (const double offset : facts.offsets) {
        const Params guess = guess_of(facts, x, offset);
        const Params candidate = least_squares(facts, x, weights, guess);
        double error = 0;
        for (std::size_t k = 0; k < x.size(); ++k) {
            const auto code = static_cast<std::size_t>(nearest_level(facts, x[k], guess));
            const double e = candidate.scale * facts.levels[code] + candidate.zero - x[k];
            error += weights[k] * e * e;
        }
        if (error >= least) continue;
        least = error;
        best = candidate;
    }
    return best;
}

inline double clamped(double x, double low, double high) { return std::min(high, std::max(low, x)); }

inline double to_float16(double x) {
    return x == 0 ? 0 : std::copysign(round_scale(std::abs(x), ScaleType::Float16), x);
}

/// A float16 number and products of it with codes, near `values`.
struct Shared {
    std::vector<double> products;
    double number = 0;
};
inline Shared share(std::vector<double> values, const std::vector<double>& weights, double lowest,
                    double highest) {
    if (lowest >= 0)
        for (double& value : values) value = std::max(0.0, value);
    double extreme = 0;
    for (const double value : values)
        if (std::abs(value) > std::abs(extreme)) extreme = value;
    if (extreme == 0) return {std::vector<double>(values.size(), 0.0)};
    constexpr double better = 1 + 1e-12;  // proportional codes are equally good: the first ones win
    double most = 0, shared = 0;
    for (int i = -9; i <= 9; ++i) {
        const double per_unit = ((lowest < 0 ? lowest : highest) + 0.099 * i) / extreme;
        double along = 0, curvature = 0;
        for (std::size_t j = 0; j < values.size(); ++j) {
            const double code = clamped(std::nearbyint(values[j] * per_unit), lowest, highest);
            along += weights[j] * code * values[j];
            curvature += weights[j] * code * code;
        }
        if (curvature > 0 && along * along / curvature > better * most) {
            most = along * along / curvature;
            shared = along / curvature;
        }
    }
    shared = to_float16(shared);
    for (double& value : values) value = shared * clamped(std::nearbyint(value / shared), lowest, highest);
    return {values, shared};
}

template <class Grid>
FittedFamily fit(const Grid& grid, const Family& family) {
    const TwoLevel facts = facts_of(grid);
    std::vector<double> scales, minima, weights;
    for (std::size_t j = 0; j < family.values.size(); ++j) {
        const Params p = fit_alone(facts, family.values[j], family.weights[j]);
        scales.push_back(p.scale);
        minima.push_back(-p.zero);
        weights.push_back(std::accumulate(family.weights[j].begin(), family.weights[j].end(), 0.0));
    }
    const Shared of_scales = share(scales, weights, facts.lowest, facts.highest);
    const Shared of_minima = share(minima, weights, facts.lowest, facts.highest);
    FittedFamily fitted{{}, {of_scales.number, facts.minimum ? -of_minima.number : 0}};
    for (std::size_t j = 0; j < scales.size(); ++j)
        fitted.params.push_back({of_scales.products[j], facts.minimum ? -of_minima.products[j] : 0});
    return fitted;
}

/// A search for the codes of a group that has the parameters `fitted`: see least_loss().
template <class Grid>
Params search(const Grid& grid, const std::vector<double>& x, const std::vector<double>& weights,
              const Matrix& u, const Params& fitted, const Params& shared) {
    const TwoLevel facts = facts_of(grid);
    const auto product = [&](double code, double number) {
        return number == 0 ? 0 : number * clamped(code, facts.lowest, facts.highest);
    };
    std::vector<Params> list = {fitted};
    constexpr std::size_t guesses = 8;  // evenly spread, from the first to the last
    for (std::size_t i = 0; i < guesses; ++i) {
        const double offset = facts.offsets[i * (facts.offsets.size() - 1) / (guesses - 1)];
        const Params best = least_squares(facts, x, weights, guess_of(facts, x, offset));
        const double steps = best.scale / shared.scale;
        const double zero = facts.minimum ? product(std::nearbyint(best.zero / shared.zero), shared.zero) : 0;
        const double other = facts.minimum ? std::nearbyint(steps) : std::ceil(steps);
        if (grid.family() == 1) {
            list.push_back({to_float16(best.scale), 0});
        } else {
            list.push_back({product(other, shared.scale), zero});
            list.push_back({product(std::floor(steps), shared.scale), zero});
        }
    }
    return least_loss(facts, list, x, weights, u);
}

}  // namespace residua::reference
