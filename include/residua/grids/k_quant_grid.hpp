#pragma once

#include <limits>

#include "residua/grids/codebook_grid.hpp"
#include "residua/grids/grid.hpp"

/// The two-level grids of ggml's super-blocks (llama.cpp, GGUF files): families of groups that cover 256
/// columns share float16 numbers d and dmin, and each group has integer codes of a few bits.
///
/// GridParams hold the products, scale = d s and zero = -dmin m. They are exact in float, as all values are, and
/// tell what d divides them: see shared_factor(), by which a file gets d and the codes back.
namespace residua {

/// Columns of a super-block.
inline constexpr Index k_quant_columns = 256;

namespace detail {

/// What the codes of a group's scale, or minimum, may be.
struct CodeRange {
    int lowest;
    int highest;

    /// The code with the largest magnitude.
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int limit() const { return lowest < 0 ? lowest : highest; }
};

/// By which the searches here move the extreme from a code. No multiple of it is half a code, where rounding errors
/// would decide what the extreme is rounded to.
inline constexpr double tenth_of_code = 0.099;

/// x >= 0 or x < 0 rounded to float16, away from 0 and from infinity.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T round_signed_scale(T x) {
    if (x == T(0)) return T(0);
    const T magnitude = round_scale(x < T(0) ? -x : x, ScaleType::Float16);
    return x < T(0) ? -magnitude : magnitude;
}

/// The code of the multiple of d nearest to x.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T nearest_multiple(T x, T d, CodeRange codes) {
    if (d == T(0)) return T(0);
    return clamp(round_to_even(x / d), T(codes.lowest), T(codes.highest));
}

/// The float16 d whose multiples by codes come nearest to value(j), j < count: the best, by least squares with weights,
/// of those that put the largest magnitude near the end of the codes, as ggml searches. Unsigned codes take negative
/// values for 0.
template <Real T, class Value>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T fit_shared_scale(Value value, const T* weights, int count,
                                                            CodeRange codes) {
    constexpr int reach = 9;  // tenths of a code
    const auto x = [&](int j) -> T { return codes.lowest >= 0 && value(j) < T(0) ? T(0) : value(j); };
    T extreme = T(0);
    for (int j = 0; j < count; ++j) extreme = magnitude_of(x(j)) > magnitude_of(extreme) ? x(j) : extreme;
    if (extreme == T(0)) return T(0);
    // Proportional codes are equally good but for rounding: the first ones win.
    constexpr T better = T(1) + T(8) * std::numeric_limits<T>::epsilon();
    T best = T(0);
    T d = T(0);
    for (int i = -reach; i <= reach; ++i) {
        const T inverse = (T(codes.limit()) + T(tenth_of_code) * T(i)) / extreme;
        T along = T(0);
        T curvature = T(0);
        for (int j = 0; j < count; ++j) {
            const T code = clamp(round_to_even(inverse * x(j)), T(codes.lowest), T(codes.highest));
            along += weights[j] * code * x(j);
            curvature += weights[j] * code * code;
        }
        // The part of the sum of squares that d explains.
        if (!(curvature > T(0)) || !(along * along > better * best * curvature)) continue;
        best = along * along / curvature;
        d = along / curvature;
    }
    return round_signed_scale(d);
}

/// The d that fit_shared_scale() may have found, given the products d s_j with the codes: the least one that is a
/// float16 and divides all of them into codes; 0 where all are 0, and where there is none.
template <Real T, class Product>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T shared_factor(Product product, int count, CodeRange codes) {
    T extreme = T(0);
    for (int j = 0; j < count; ++j)
        extreme = magnitude_of(T(product(j))) > magnitude_of(extreme) ? T(product(j)) : extreme;
    if (extreme == T(0)) return T(0);
    const int most = codes.highest > -codes.lowest ? codes.highest : -codes.lowest;
    for (int code = most; code > 0; --code) {
        for (const int sign : {1, -1}) {
            if (sign * code > codes.highest || sign * code < codes.lowest) continue;
            const T d = extreme / T(sign * code);
            if (round_signed_scale(d) != d) continue;
            bool divides = true;
            for (int j = 0; j < count; ++j)
                divides = divides && nearest_multiple(T(product(j)), d, codes) * d == T(product(j));
            if (divides) return d;
        }
    }
    return T(0);
}

/// The codes of parameters that share numbers, see TwoLevelGrid.
template <Real T, class G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> super_block_codes(const G& grid, GridParams<T> params,
                                                                         GridParams<T> shared,
                                                                         Rounding rounding) {
    const CodeRange range = grid.scale_codes();
    const T steps = params.scale / (shared.scale == T(0) ? T(1) : shared.scale);
    T code = round_to_even(steps);
    if (rounding == Rounding::Down) code = round_down(steps);
    if (rounding == Rounding::Up) code = -round_down(-steps);
    code = shared.scale == T(0) ? T(0) : clamp(code, T(range.lowest), T(range.highest));
    return {code, grid.has_minimum() ? nearest_multiple(params.zero, shared.zero, range) : T(0)};
}

/// The numbers that parameters of a file share.
template <Real T, class G>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> shared_numbers(const G& grid,
                                                                      const GridParams<T>* params,
                                                                      int count) {
    const CodeRange codes = grid.scale_codes();
    const T d = shared_factor<T>([&](int j) { return params[j].scale; }, count, codes);
    if (!grid.has_minimum()) return {d, T(0)};
    return {d, -shared_factor<T>([&](int j) { return -params[j].zero; }, count, codes)};
}

/// The nearest of them that a file stores; no minimum is above 0.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline GridParams<T> stored_numbers(GridParams<T> shared) {
    return {round_signed_scale(shared.scale), shared.zero < T(0) ? round_signed_scale(shared.zero) : T(0)};
}

/// The parameters of a family's groups as a file stores them, see TwoLevelGrid.
template <Real T, class G>
RESIDUA_HOST_DEVICE inline GridParams<T> settle_super_block(const G& grid, GridParams<T>* params,
                                                            const T* weights, int count) {
    const CodeRange range = grid.scale_codes();
    GridParams<T> shared = {fit_shared_scale([&](int j) { return params[j].scale; }, weights, count, range),
                            T(0)};
    if (grid.has_minimum())
        shared.zero = -fit_shared_scale([&](int j) { return -params[j].zero; }, weights, count, range);
    for (int j = 0; j < count; ++j) {
        const GridParams<T> codes = grid.codes(params[j], shared, Rounding::Nearest);
        params[j] = {shared.scale * codes.scale, shared.zero * codes.zero};
    }
    return shared;
}

/// x / scale, 0 where the scale is.
template <Real T>
[[nodiscard]] RESIDUA_HOST_DEVICE inline T steps_of(T x, T scale) {
    constexpr T huge = T(0x1.0p126f);
    return divide(x, scale == T(0) ? huge : scale);
}

}  // namespace detail

/// Q2_K, Q3_K and Q6_K in groups of 16 columns, Q4_K and Q5_K in groups of 32, told apart by their bits:
///
///     w ~ d s code - dmin m             for 2, 4 and 5 bits; s and m have 4 bits in Q2_K, else 6
///     w ~ d s (code - 2^(bits - 1))     for 3 and 6 bits; s has 6 bits in Q3_K, 8 in Q6_K, and a sign
///
/// GridParams: scale = d s, zero = -dmin m or 0.
template <int Columns>
requires(Columns == 16 || Columns == 32) struct KQuantGrid {
    static constexpr Index group_size = Columns;
    static constexpr int largest_family = static_cast<int>(k_quant_columns / Columns);

    int bits = Columns == 16 ? 3 : 4;
    ClipSearch clip = {};

    void validate() const {
        clip.validate();
        if constexpr (Columns == 16) {
            require(bits == 2 || bits == 3 || bits == 6, "KQuantGrid<16>: bits is", bits, "2, 3 or 6");
        } else {
            require(bits == 4 || bits == 5, "KQuantGrid<32>: bits is", bits, "4 or 5");
        }
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 1 << bits; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int family() const { return largest_family; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool has_minimum() const { return bits != 3 && bits != 6; }

    /// Codes of scales and of minima.
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr detail::CodeRange scale_codes() const {
        if (bits == 2) return {0, 15};
        if (bits == 3) return {-32, 31};
        if (bits == 6) return {-128, 127};
        return {0, 63};
    }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int guesses() const { return has_minimum() ? 37 : 19; }

    /// The range in steps that are up to 0.9 more or fewer than there are.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> guess(int i, T low, T high) const {
        if (has_minimum())
            return {(high - low) / (T(levels() - 1) + T(detail::tenth_of_code / 2) * T(i - 18)), low};
        const T extreme = high > -low ? high : low;
        return {extreme / (-half<T>() + T(detail::tenth_of_code) * T(i - 9)), T(0)};
    }

    template <Real T>
    RESIDUA_HOST_DEVICE GridParams<T> settle(GridParams<T>* params, const T* weights, int count) const {
        return detail::settle_super_block(*this, params, weights, count);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> shared(const GridParams<T>* params, int count) const {
        return detail::shared_numbers(*this, params, count);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> codes(GridParams<T> params, GridParams<T> shared,
                                                          Rounding rounding) const {
        return detail::super_block_codes(*this, params, shared, rounding);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> stored_shared(GridParams<T> shared) const {
        return detail::stored_numbers(shared);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        const T offset = has_minimum() ? T(0) : half<T>();
        const T step = detail::round_small(detail::steps_of(x - p.zero, p.scale));
        return detail::to_code(detail::clamp(step + offset, T(0), T(levels() - 1)));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        const T offset = has_minimum() ? T(0) : half<T>();
        return p.scale * (detail::from_code<T>(code) - offset) + p.zero;
    }

  private:
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr T half() const {
        return T(1 << (bits - 1));
    }
};

namespace detail {

struct IQ4Levels {
    static constexpr Codebook<16> values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
};

}  // namespace detail

/// IQ4_XS, groups of 32 columns, w ~ d s values[code] with codes s from -32 to 31; and, with families of one group,
/// IQ4_NL, w ~ d values[code]. GridParams: scale = d s.
struct IQ4Grid {
    static constexpr Index group_size = 32;
    static constexpr int largest_family = static_cast<int>(k_quant_columns / group_size);

    bool nested = true;  ///< IQ4_XS, or IQ4_NL
    ClipSearch clip = {};
    Codebook<16> values = detail::IQ4Levels::values;

    void validate() const { clip.validate(); }

    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int levels() const { return 16; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int family() const { return nested ? largest_family : 1; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr bool has_minimum() const { return false; }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr detail::CodeRange scale_codes() const {
        return nested ? detail::CodeRange{-32, 31} : detail::CodeRange{1, 1};
    }
    [[nodiscard]] RESIDUA_HOST_DEVICE constexpr int guesses() const { return 15; }

    /// The extreme at up to 7 units from the first level.
    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> guess(int i, T low, T high) const {
        const T extreme = high > -low ? high : low;
        return {extreme / (T(values[0]) + T(i - 7)), T(0)};
    }

    template <Real T>
    RESIDUA_HOST_DEVICE GridParams<T> settle(GridParams<T>* params, const T* weights, int count) const {
        return detail::settle_super_block(*this, params, weights, count);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> shared(const GridParams<T>* params, int count) const {
        return detail::shared_numbers(*this, params, count);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> codes(GridParams<T> params, GridParams<T> shared,
                                                          Rounding rounding) const {
        return detail::super_block_codes(*this, params, shared, rounding);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE GridParams<T> stored_shared(GridParams<T> shared) const {
        return detail::stored_numbers(shared);
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE int encode(T x, GridParams<T> p) const {
        return detail::nearest_of(values, detail::steps_of(x, p.scale));
    }

    template <Real T>
    [[nodiscard]] RESIDUA_HOST_DEVICE T decode(int code, GridParams<T> p) const {
        return p.scale * T(values[code]);
    }
};

static_assert(TwoLevelGrid<KQuantGrid<16>, float> && TwoLevelGrid<KQuantGrid<32>, double>);
static_assert(TwoLevelGrid<IQ4Grid, float> && TwoLevelGrid<IQ4Grid, double>);

}  // namespace residua
