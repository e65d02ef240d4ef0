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
    std::vector<double> offsets;  ///< of the guesses, in levels
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
    facts.offsets = facts.minimum ? offsets(-18, 18, 0.05) : offsets(-9, 9, 0.1);
    return facts;
}
template <int Columns>
TwoLevel facts_of(const KQuantGrid<Columns>& grid) {
    return facts_of(grid.bits);
}
inline TwoLevel facts_of(const IQ4Grid& grid) {
    TwoLevel facts;
    facts.levels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    facts.minimum = false;
    facts.lowest = grid.nested ? -32 : 1;
    facts.highest = grid.nested ? 31 : 1;
    facts.offsets = offsets(-7, 7, -1);
    return facts;
}

inline int nearest_level(const TwoLevel& facts, double x, const Params& p) {
    const double level = p.scale == 0 ? 0 : (x - p.zero) / p.scale;
    std::size_t best = 0;
    for (std::size_t i = 1; i < facts.levels.size(); ++i)
        if (std::abs(facts.levels[i] - level) < std::abs(facts.levels[best] - level)) best = i;
    return static_cast<int>(best);
}

template <class Grid>
int encode(double x, const Params& p, const Grid& grid) {
    return nearest_level(facts_of(grid), x, p);
}
template <class Grid>
double decode(int code, const Params& p, const Grid& grid) {
    return p.scale * facts_of(grid).levels[static_cast<std::size_t>(code)] + p.zero;
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

inline Params fit_alone(const TwoLevel& facts, const std::vector<double>& x,
                        const std::vector<double>& weights) {
    double low = 0, high = 0;
    for (const double value : x) low = std::min(low, value);
    for (const double value : x) high = std::max(high, value);
    const double extreme = high > -low ? high : low;
    Params best;
    double least = std::numeric_limits<double>::infinity();
    for (const double offset : facts.offsets) {
        const Params guess = facts.minimum ? Params{(high - low) / (facts.levels.back() + offset), low}
                                           : Params{extreme / (facts.levels.front() - offset), 0};
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

/// Products of one float16 number with codes, near `values`.
inline std::vector<double> share(std::vector<double> values, const std::vector<double>& weights,
                                 double lowest, double highest) {
    if (lowest >= 0)
        for (double& value : values) value = std::max(0.0, value);
    double extreme = 0;
    for (const double value : values)
        if (std::abs(value) > std::abs(extreme)) extreme = value;
    if (extreme == 0) return std::vector<double>(values.size(), 0.0);
    constexpr double better = 1 + 1e-12;  // proportional codes are equally good: the first ones win
    double most = 0, shared = 0;
    for (int i = -9; i <= 9; ++i) {
        const double per_unit = ((lowest < 0 ? lowest : highest) + 0.1 * i) / extreme;
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
    shared = std::copysign(round_scale(std::abs(shared), ScaleType::Float16), shared);
    for (double& value : values) value = shared * clamped(std::nearbyint(value / shared), lowest, highest);
    return values;
}

template <class Grid>
std::vector<Params> fit(const Grid& grid, const Family& family) {
    const TwoLevel facts = facts_of(grid);
    std::vector<double> scales, minima, weights;
    for (std::size_t j = 0; j < family.values.size(); ++j) {
        const Params p = fit_alone(facts, family.values[j], family.weights[j]);
        scales.push_back(p.scale);
        minima.push_back(-p.zero);
        weights.push_back(std::accumulate(family.weights[j].begin(), family.weights[j].end(), 0.0));
    }
    scales = share(scales, weights, facts.lowest, facts.highest);
    if (facts.minimum) minima = share(minima, weights, facts.lowest, facts.highest);
    std::vector<Params> params;
    for (std::size_t j = 0; j < scales.size(); ++j)
        params.push_back({scales[j], facts.minimum ? -minima[j] : 0});
    return params;
}

}  // namespace residua::reference
