#pragma once

// The truth that the library is tested against, written from the papers and a textbook: double precision,
// plain loops, explicit inverses, one column after the other. Options and grids of the library are read as
// settings; nothing of its algorithms is used.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "residua/core/options.hpp"
#include "residua/grids/integer_grid.hpp"

namespace residua::reference {

struct Matrix {
    Index rows = 0;
    Index cols = 0;
    std::vector<double> data;

    Matrix() = default;
    Matrix(Index rows_, Index cols_)
        : rows(rows_), cols(cols_), data(static_cast<std::size_t>(rows_ * cols_), 0.0) {}
    Matrix(Index rows_, Index cols_, std::vector<double> values)
        : rows(rows_), cols(cols_), data(std::move(values)) {}
    double& operator()(Index i, Index j) { return data[static_cast<std::size_t>(i * cols + j)]; }
    double operator()(Index i, Index j) const { return data[static_cast<std::size_t>(i * cols + j)]; }
};

inline Matrix product(const Matrix& a, const Matrix& b) {
    Matrix c(a.rows, b.cols);
    for (Index i = 0; i < a.rows; ++i)
        for (Index k = 0; k < a.cols; ++k)
            for (Index j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
    return c;
}

inline Matrix transposed(const Matrix& a) {
    Matrix c(a.cols, a.rows);
    for (Index i = 0; i < a.rows; ++i)
        for (Index j = 0; j < a.cols; ++j) c(j, i) = a(i, j);
    return c;
}

inline Matrix sum(Matrix a, const Matrix& b) {
    for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] += b.data[i];
    return a;
}

inline Matrix strict_upper(Matrix a) {
    for (Index i = 0; i < a.rows; ++i)
        for (Index j = 0; j <= i; ++j) a(i, j) = 0;
    return a;
}

/// Gauss-Jordan with row pivots.
inline Matrix inverse(Matrix a) {
    const Index n = a.rows;
    Matrix b(n, n);
    for (Index i = 0; i < n; ++i) b(i, i) = 1;
    for (Index k = 0; k < n; ++k) {
        Index pivot = k;
        for (Index i = k + 1; i < n; ++i)
            if (std::abs(a(i, k)) > std::abs(a(pivot, k))) pivot = i;
        if (a(pivot, k) == 0) throw std::domain_error("reference::inverse: singular");
        for (Index j = 0; j < n; ++j) {
            std::swap(a(k, j), a(pivot, j));
            std::swap(b(k, j), b(pivot, j));
        }
        const double scale = 1 / a(k, k);
        for (Index j = 0; j < n; ++j) a(k, j) *= scale;
        for (Index j = 0; j < n; ++j) b(k, j) *= scale;
        for (Index i = 0; i < n; ++i) {
            const double factor = a(i, k);
            if (i == k || factor == 0) continue;
            for (Index j = 0; j < n; ++j) a(i, j) -= factor * a(k, j);
            for (Index j = 0; j < n; ++j) b(i, j) -= factor * b(k, j);
        }
    }
    return b;
}

/// U upper triangular with A = U'U.
inline Matrix cholesky(const Matrix& a) {
    const Index n = a.rows;
    Matrix u(n, n);
    for (Index i = 0; i < n; ++i) {
        double d = a(i, i);
        for (Index k = 0; k < i; ++k) d -= u(k, i) * u(k, i);
        if (!(d > 0)) throw std::domain_error("reference::cholesky: not positive definite");
        u(i, i) = std::sqrt(d);
        for (Index j = i + 1; j < n; ++j) {
            double s = a(i, j);
            for (Index k = 0; k < i; ++k) s -= u(k, i) * u(k, j);
            u(i, j) = s / u(i, i);
        }
    }
    return u;
}

/// H = sum_t w_t x_t x_t', D = sum_t w_t (x_fp_t - x_t) x_t'. x, x_fp: (tokens, in_features); an empty x_fp
/// is x. D_h = sum_t w_t (h_fp_t - h_t) x_t', (out_features, in_features), by stream_moments(), or empty.
struct Moments {
    Matrix h;
    Matrix d;
    Matrix stream = {};
};

inline Matrix stream_moments(const Matrix& h, const Matrix& h_fp, const Matrix& x,
                             const std::vector<float>& weights = {}) {
    Matrix sums(h.cols, x.cols);
    for (Index t = 0; t < x.rows; ++t) {
        const double weight = weights.empty() ? 1.0 : double(weights[static_cast<std::size_t>(t)]);
        if (weight == 0) continue;
        for (Index i = 0; i < h.cols; ++i)
            for (Index j = 0; j < x.cols; ++j) sums(i, j) += weight * (h_fp(t, i) - h(t, i)) * x(t, j);
    }
    return sums;
}

inline Moments moments(const Matrix& x, const Matrix& x_fp = {}, const std::vector<float>& weights = {}) {
    const Index n = x.cols;
    Moments sums{Matrix(n, n), Matrix(n, n)};
    for (Index t = 0; t < x.rows; ++t) {
        const double weight = weights.empty() ? 1.0 : double(weights[static_cast<std::size_t>(t)]);
        if (weight == 0) continue;
        for (Index i = 0; i < n; ++i) {
            const double deviation = x_fp.rows == 0 ? 0.0 : x_fp(t, i) - x(t, i);
            for (Index j = 0; j < n; ++j) {
                sums.h(i, j) += weight * x(t, i) * x(t, j);
                sums.d(i, j) += weight * deviation * x(t, j);
            }
        }
    }
    return sums;
}

// ---- grids
// -----------------------------------------------------------------------------------------------------

/// `value` > 0 rounded to the nearest number of `digits` binary digits, ties to even, and kept within the
/// positive finite numbers of the format.
inline double round_to_format(double value, int digits, int least_exponent, double smallest, double largest) {
    if (value < smallest) return smallest;
    if (value > largest) return largest;
    int exponent = 0;
    std::frexp(value, &exponent);  // value = f 2^exponent, f in [1/2, 1)
    const double unit = std::ldexp(1.0, std::max(exponent - 1, least_exponent) - (digits - 1));
    return std::min(largest, std::nearbyint(value / unit) * unit);
}

/// A scale is a float first; what stores it in 16 bits rounds that float.
inline double round_scale(double value, ScaleType type) {
    const double least_normal = std::ldexp(1.0, -126);
    const double scale =
        round_to_format(value, 24, -126, least_normal, double(std::numeric_limits<float>::max()));
    if (type == ScaleType::Float16) return round_to_format(scale, 11, -14, std::ldexp(1.0, -24), 65504);
    if (type == ScaleType::BFloat16)
        return round_to_format(scale, 8, -126, least_normal, std::ldexp(255.0, 120));
    return scale;
}

struct Params {
    double scale = 1;
    double zero = 0;
};

inline int encode(double w, const Params& p, int bits) {
    const double last = std::ldexp(1.0, bits) - 1;
    return static_cast<int>(std::min(last, std::max(0.0, std::nearbyint(w / p.scale) + p.zero)));
}

inline double decode(int code, const Params& p) { return p.scale * (code - p.zero); }

inline Params params(const IntegerGrid& grid, double low, double high) {
    const double last = std::ldexp(1.0, grid.bits) - 1;
    const double middle = std::ldexp(1.0, grid.bits - 1);
    if (low == 0 && high == 0) return {1, middle};  // documented at IntegerGrid
    const double absmax = std::max(high, -low);
    switch (grid.symmetry) {
        case Symmetry::None: {
            const double scale = round_scale((high - low) / last, grid.scale_type);
            return {scale, std::min(last, std::max(0.0, std::nearbyint(-low / scale)))};
        }
        case Symmetry::Restricted:
            return {round_scale(absmax / (middle - 1), grid.scale_type), middle};
        case Symmetry::FullRange:
            return {round_scale(2 * absmax / last, grid.scale_type), middle};
    }
    throw std::logic_error("unknown symmetry");
}

inline Params fit(const IntegerGrid& grid, const std::vector<double>& group) {
    double low = 0;
    double high = 0;
    for (const double w : group) low = std::min(low, w);
    for (const double w : group) high = std::max(high, w);
    Params best = params(grid, low, high);
    if (!grid.clip.enabled) return best;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < grid.clip.steps; ++i) {
        const double p = 1.0 - grid.clip.shrink * i / grid.clip.steps;
        const Params candidate = params(grid, p * low, p * high);
        double error = 0;
        for (const double w : group)
            error +=
                std::pow(std::abs(w - decode(encode(w, candidate, grid.bits), candidate)), grid.clip.norm);
        if (error < least) {
            least = error;
            best = candidate;
        }
    }
    return best;
}

/// The candidates of a search by loss, the choice of the search by norm first.
inline std::vector<Params> candidates(const IntegerGrid& grid, const std::vector<double>& group) {
    double low = 0;
    double high = 0;
    for (const double w : group) low = std::min(low, w);
    for (const double w : group) high = std::max(high, w);
    std::vector<Params> list = {fit(grid, group)};
    if (grid.symmetry == Symmetry::None) {
        for (const double p : {0, 5, 10, 15, 20, 25, 30})
            for (const double q : {0, 5, 10, 15, 20, 25, 30})
                list.push_back(params(grid, (50 - p) / 50 * low, (50 - q) / 50 * high));
    } else {
        for (int i = 0; i < 40; ++i)
            list.push_back(params(grid, (50 - i) / 50.0 * low, (50 - i) / 50.0 * high));
    }
    return list;
}

/// What the reference's solve asks of a grid, here of integers; two_level_reference.hpp has other ones.
inline int encode(double w, const Params& p, const IntegerGrid& grid) { return encode(w, p, grid.bits); }
inline double decode(int code, const Params& p, const IntegerGrid&) { return decode(code, p); }

/// sum_k weight_k (w_k - q_k)^2, each weight rounded by itself.
template <class Grid>
double rounding_loss(const std::vector<double>& group, const Params& params, const Grid& grid,
                     const std::vector<double>& weights) {
    double loss = 0;
    for (std::size_t k = 0; k < group.size(); ++k) {
        const double error = group[k] - decode(encode(group[k], params, grid), params, grid);
        loss += weights[k] * (error * error);
    }
    return loss;
}

/// GPTQ of one group as if it were all: sum_k (c_k - q_k)^2 / u_kk^2, u (b, b) with H^-1 = U'U, rows and
/// columns of the group alone.
template <class Grid>
double group_loss(std::vector<double> c, const Params& params, const Grid& grid, const Matrix& u) {
    double loss = 0;
    for (Index k = 0; k < u.rows; ++k) {
        const double error =
            c[std::size_t(k)] - decode(encode(c[std::size_t(k)], params, grid), params, grid);
        loss += error * error / (u(k, k) * u(k, k));
        for (Index j = k + 1; j < u.rows; ++j) c[std::size_t(j)] -= error * u(k, j) / u(k, k);
    }
    return loss;
}

/// The candidate with the least group_loss among the survivors of a search by loss, or, where `u` is empty, with the
/// least rounding_loss.
template <class Grid>
Params least_loss(const Grid& grid, const std::vector<Params>& list, const std::vector<double>& group,
                  const std::vector<double>& weights, const Matrix& u) {
    using Candidate = std::pair<double, Params>;
    std::vector<Candidate> candidates;
    for (const Params& p : list) candidates.emplace_back(rounding_loss(group, p, grid, weights), p);
    const auto by_error = [](const Candidate& a, const Candidate& b) { return a.first < b.first; };
    if (u.rows == 0) return std::min_element(candidates.begin(), candidates.end(), by_error)->second;
    // the first one, then the others by what the prescreen says, each value once
    std::stable_sort(candidates.begin() + 1, candidates.end(), by_error);
    Params best = list[0];
    double least = group_loss(group, best, grid, u);
    int tried = 1;
    for (std::size_t i = 1; i < candidates.size() && tried < grid.clip.survivors; ++i) {
        const auto& [error, params] = candidates[i];
        if (error == candidates[0].first || (i > 1 && error == candidates[i - 1].first)) continue;
        ++tried;
        const double loss = group_loss(group, params, grid, u);
        if (!(loss < least)) continue;
        least = loss;
        best = params;
    }
    return best;
}

inline Params fit_by_loss(const IntegerGrid& grid, const std::vector<double>& group,
                          const std::vector<double>& weights, const Matrix& u) {
    return least_loss(grid, candidates(grid, group), group, weights, u);
}

/// Groups that share numbers.
template <class Grid>
Index family_of(const Grid& grid) {
    if constexpr (requires { grid.family(); }) return grid.family();
    return 1;
}

/// One output row's weights in the groups of a family, and what their errors weigh.
struct Family {
    std::vector<std::vector<double>> values;
    std::vector<std::vector<double>> weights;
    Matrix own;  ///< U of the columns, where a search by loss may ask for it
};
struct FittedFamily {
    std::vector<Params> params;
    Params shared;  ///< what they are multiples of, if they are
};
inline FittedFamily fit(const IntegerGrid& grid, const Family& family) {
    const std::vector<double>& group = family.values.front();
    if (grid.clip.by_loss()) return {{fit_by_loss(grid, group, family.weights.front(), family.own)}, {}};
    return {{fit(grid, group)}, {}};
}

// ---- order and groups
// ------------------------------------------------------------------------------------------

inline Index group_width(const SolverOptions& options, Index n) {
    constexpr Index usual = 128;
    const Index size = options.group_size == SolverOptions::grid_default ? usual : options.group_size;
    return size < 0 ? n : std::min(size, n);
}

/// order[p] is the column quantized as the p-th; families of groups stay together as groups do.
inline std::vector<Index> column_order(const Matrix& h, const SolverOptions& options, Index family = 1) {
    const Index n = h.rows;
    const Index width = std::min(n, family * group_width(options, n));
    std::vector<Index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), Index(0));
    // a before b in what the ordering asks for, the rest by position
    const auto mean = [&](Index group) {
        double total = 0;
        const Index end = std::min(n, (group + 1) * width);
        for (Index j = group * width; j < end; ++j) total += h(j, j);
        return total / static_cast<double>(end - group * width);
    };
    std::sort(order.begin(), order.end(), [&](Index a, Index b) {
        if (options.ordering == Ordering::Natural) return a < b;
        if (options.ordering == Ordering::GroupAware && a / width != b / width) {
            const double mean_a = mean(a / width);
            const double mean_b = mean(b / width);
            return mean_a != mean_b ? mean_a > mean_b : a < b;
        }
        return h(a, a) != h(b, b) ? h(a, a) > h(b, b) : a < b;
    });
    return order;
}

// ---- methods
// ---------------------------------------------------------------------------------------------------

enum class Method { RoundToNearest, GPTQ, GPTAQ, ResComp, GPTQResComp, QEP, Qronos };

struct Settings {
    Method method = Method::GPTQ;
    double alpha = 0;
    double beta = 0;
};

struct Solution {
    Index groups = 0;
    std::vector<int> codes;                 ///< (m, n)
    std::vector<double> scales;             ///< (m, groups)
    std::vector<double> zeros;              ///< (m, groups)
    std::vector<std::int32_t> group_index;  ///< (n)
    Matrix dequantized;                     ///< (m, n)
};

/// Quantizes w (m, n) column by column, right-looking. `damping` is lambda as it was used.
template <class Grid>
Solution solve(const Settings& settings, const Matrix& w, const Moments& sums, const SolverOptions& options,
               const Grid& grid) {
    const Index m = w.rows;
    const Index n = w.cols;
    const Method method = settings.method;
    const bool rounds_only = method == Method::RoundToNearest;
    const bool static_groups = options.static_groups || options.group_size < 0 || rounds_only;
    const Ordering ordering = rounds_only ? Ordering::Natural : options.ordering;
    SolverOptions layout = options;
    layout.ordering = ordering;
    const std::vector<Index> order = column_order(sums.h, layout, family_of(grid));
    const auto at = [&](Index p) { return order[static_cast<std::size_t>(p)]; };

    // groups
    const Index width = group_width(options, n);
    const bool by_position = ordering == Ordering::Activation && !static_groups;
    Solution s;
    s.groups = (n + width - 1) / width;
    s.group_index.resize(static_cast<std::size_t>(n));
    std::vector<std::vector<Index>> members(static_cast<std::size_t>(s.groups));  // positions
    for (Index p = 0; p < n; ++p) {
        const Index group = (by_position ? p : at(p)) / width;
        members[static_cast<std::size_t>(group)].push_back(p);
        s.group_index[static_cast<std::size_t>(at(p))] = static_cast<std::int32_t>(group);
    }

    // dead columns, damping, order of quantization
    double trace = 0;
    Index live = 0;
    for (Index j = 0; j < n; ++j) {
        trace += sums.h(j, j);
        live += sums.h(j, j) != 0;
    }
    const double mean = live > 0 ? trace / static_cast<double>(n) : 1.0;  // dead columns count as 0
    const auto dead = [&](Index p) { return !rounds_only && sums.h(at(p), at(p)) == 0; };
    Matrix h(n, n);
    Matrix d(n, n);
    Matrix stream(m, n);  // alpha_h D_h
    for (Index i = 0; i < n; ++i) {
        for (Index r = 0; r < sums.stream.rows; ++r)
            if (!dead(i)) stream(r, i) = options.stream_alpha * sums.stream(r, at(i));
        for (Index j = 0; j < n; ++j) {
            h(i, j) = sums.h(at(i), at(j));
            if (!dead(i) && !dead(j)) d(i, j) = sums.d(at(i), at(j));
        }
        if (dead(i)) h(i, i) = mean;
        h(i, i) += options.damping.initial * mean;
    }
    Matrix original(m, n);  // with all its columns
    Matrix weight(m, n);
    for (Index r = 0; r < m; ++r) {
        for (Index p = 0; p < n; ++p) {
            original(r, p) = w(r, at(p));
            weight(r, p) = dead(p) ? 0.0 : w(r, at(p));
        }
    }

    // H^-1 = U'U, the matrices of the methods, the target
    Matrix u(n, n);
    Matrix p1(n, n);
    Matrix p2(n, n);
    Matrix c = weight;
    if (!rounds_only) {
        const Matrix h_inverse = inverse(h);
        u = cholesky(h_inverse);
        const Matrix ut = transposed(u);
        if (method == Method::GPTAQ || method == Method::ResComp)
            p1 = product(strict_upper(product(d, ut)), u);
        if (method == Method::ResComp) p2 = product(strict_upper(product(sum(h, d), ut)), u);
        if (method == Method::GPTQResComp) p2 = product(strict_upper(product(h, ut)), u);
        if (method == Method::QEP || method == Method::Qronos) {
            const Matrix shift = product(product(weight, d), h_inverse);
            for (std::size_t i = 0; i < c.data.size(); ++i) c.data[i] += settings.alpha * shift.data[i];
        }
        if (sums.stream.rows > 0) c = sum(c, product(stream, h_inverse));
    }

    // one grid per row and group
    std::vector<Params> params(static_cast<std::size_t>(m * s.groups));
    const auto grid_of = [&](Index r, Index p) -> const Params& {
        return params[static_cast<std::size_t>(r * s.groups +
                                               s.group_index[static_cast<std::size_t>(at(p))])];
    };
    const Index family = family_of(grid);
    std::vector<Params> shared(static_cast<std::size_t>(m));  // of the family in work
    const auto own_factor = [&](const std::vector<Index>& columns) {
        Matrix own(Index(columns.size()), Index(columns.size()));  // columns follow each other
        for (Index i = 0; i < own.rows; ++i)
            for (Index j = 0; j < own.rows; ++j) own(i, j) = u(columns.front() + i, columns.front() + j);
        return own;
    };
    const auto first_of_family = [&](Index group) { return group / family * family; };
    const auto fit_family = [&](Index first, const Matrix& values) {
        const Index end = std::min(s.groups, first + family);
        Family of_row;
        if (!static_groups && family == 1) of_row.own = own_factor(members[static_cast<std::size_t>(first)]);
        for (Index r = 0; r < m; ++r) {
            of_row.values.clear();
            of_row.weights.clear();
            for (Index group = first; group < end; ++group) {
                of_row.values.emplace_back();
                of_row.weights.emplace_back();
                for (const Index p : members[static_cast<std::size_t>(group)]) {
                    of_row.values.back().push_back(values(r, p));
                    of_row.weights.back().push_back(rounds_only ? 1 : 1 / (u(p, p) * u(p, p)));  // R_pp^2
                }
            }
            const FittedFamily fitted = fit(grid, of_row);
            std::copy(fitted.params.begin(), fitted.params.end(), params.begin() + r * s.groups + first);
            shared[static_cast<std::size_t>(r)] = fitted.shared;
        }
    };
    // the codes of a group in a family, on what its weights are once the groups before it are done
    bool searches = false;
    if constexpr (requires { grid.family(); }) searches = !static_groups && grid.clip.by_loss();
    for (const auto& columns : members)
        for (std::size_t i = 1; i < columns.size(); ++i)
            searches = searches && columns[i] == columns[i - 1] + 1;
    const auto search_group = [&]([[maybe_unused]] Index group) {
        if constexpr (requires { grid.family(); }) {
            const auto& columns = members[static_cast<std::size_t>(group)];
            const Matrix own = own_factor(columns);
            for (Index r = 0; r < m; ++r) {
                std::vector<double> values;
                std::vector<double> weights;
                for (const Index p : columns) values.push_back(c(r, p));
                for (const Index p : columns) weights.push_back(1 / (u(p, p) * u(p, p)));
                Params& found = params[static_cast<std::size_t>(r * s.groups + group)];
                found = search(grid, values, weights, own, found, shared[static_cast<std::size_t>(r)]);
            }
        }
    };
    if (static_groups) {
        const bool stale =
            options.published.scales == GroupScales::Stale && options.group_size < 0 && !rounds_only;
        for (Index g = 0; g < s.groups; g += family) fit_family(g, stale ? original : c);
    }

    // Qronos: the first column for the others as they were, the others for the first
    if (method == Method::Qronos) {
        const Matrix correlation = product(weight, d);
        for (Index r = 0; r < m; ++r) {
            const double moved = weight(r, 0) + (correlation(r, 0) + stream(r, 0)) / h(0, 0) - c(r, 0);
            for (Index j = 0; j < n; ++j) c(r, j) += moved * u(0, j) / u(0, 0);
        }
    }

    // `c` sees every column before, `settled` sees blocks that are complete, through the chosen view
    Matrix settled = c;
    Matrix quantized(m, n);
    s.codes.resize(static_cast<std::size_t>(m * n));
    const auto feed = [&](Matrix& target, Index r, Index i, Index j, double v) {
        target(r, j) += -(c(r, i) - quantized(r, i)) * u(i, j) / u(i, i) + settings.alpha * v * p1(i, j) +
                        settings.beta * (weight(r, i) - v) * p2(i, j);
    };
    const Index block = rounds_only ? n : options.block_size;
    for (Index i = 0, seen = -1; i < n; ++i) {
        const Index group = s.group_index[static_cast<std::size_t>(at(i))];
        const Index first = first_of_family(group);
        if (!static_groups && first != seen)
            fit_family(first, options.published.scales == GroupScales::Stale ? settled : c);
        seen = first;
        if (searches && members[static_cast<std::size_t>(group)].front() == i) search_group(group);
        for (Index r = 0; r < m; ++r) {
            const int code = encode(c(r, i), grid_of(r, i), grid);
            s.codes[static_cast<std::size_t>(r * n + at(i))] = code;
            quantized(r, i) = decode(code, grid_of(r, i), grid);
            if (rounds_only) continue;
            for (Index j = i + 1; j < n; ++j) feed(c, r, i, j, c(r, i));
        }
        const bool block_ends = (i + 1) % block == 0;
        if (!block_ends || rounds_only) continue;
        for (Index k = i + 1 - block; k <= i; ++k) {
            for (Index r = 0; r < m; ++r) {
                double v = c(r, k);
                if (options.published.view == ResidualView::Quantized) v = quantized(r, k);
                if (options.published.view == ResidualView::Clamped) {
                    const Params& last = grid_of(r, i);
                    const double low = decode(0, last, grid);
                    const double high = decode(grid.levels() - 1, last, grid);
                    v = std::min(high, std::max(low, v));
                }
                for (Index j = i + 1; j < n; ++j) feed(settled, r, k, j, v);
            }
        }
        for (Index r = 0; r < m; ++r)
            for (Index j = i + 1; j < n; ++j) c(r, j) = settled(r, j);
    }

    s.dequantized = Matrix(m, n);
    for (Index r = 0; r < m; ++r)
        for (Index p = 0; p < n; ++p) s.dequantized(r, at(p)) = quantized(r, p);
    for (const Params& p : params) {
        s.scales.push_back(p.scale);
        s.zeros.push_back(p.zero);
    }
    return s;
}

// ---- objectives
// ------------------------------------------------------------------------------------------------

/// sum_t w_t |(W - Q) x_t|^2
inline double symmetric_objective(const Matrix& w, const Matrix& q, const Matrix& x) {
    double total = 0;
    for (Index t = 0; t < x.rows; ++t) {
        for (Index r = 0; r < w.rows; ++r) {
            double y = 0;
            for (Index j = 0; j < w.cols; ++j) y += (w(r, j) - q(r, j)) * x(t, j);
            total += y * y;
        }
    }
    return total;
}

/// sum_t |W x_fp_t - Q x_t|^2 - |W (x_fp_t - x_t)|^2
inline double asymmetric_objective(const Matrix& w, const Matrix& q, const Matrix& x, const Matrix& x_fp) {
    double total = 0;
    for (Index t = 0; t < x.rows; ++t) {
        for (Index r = 0; r < w.rows; ++r) {
            double error = 0;
            double deviation = 0;
            for (Index j = 0; j < w.cols; ++j) {
                error += w(r, j) * x_fp(t, j) - q(r, j) * x(t, j);
                deviation += w(r, j) * (x_fp(t, j) - x(t, j));
            }
            total += error * error - deviation * deviation;
        }
    }
    return total;
}

/// |Q X - W X_fp| / |W X_fp|, Frobenius norms over tokens and output rows.
inline double relative_output_error(const Matrix& w, const Matrix& q, const Matrix& x, const Matrix& x_fp) {
    double error = 0;
    double norm = 0;
    for (Index t = 0; t < x.rows; ++t) {
        for (Index r = 0; r < w.rows; ++r) {
            double y = 0;
            double exact = 0;
            for (Index j = 0; j < w.cols; ++j) {
                y += q(r, j) * x(t, j);
                exact += w(r, j) * x_fp(t, j);
            }
            error += (y - exact) * (y - exact);
            norm += exact * exact;
        }
    }
    return std::sqrt(error / norm);
}

}  // namespace residua::reference
