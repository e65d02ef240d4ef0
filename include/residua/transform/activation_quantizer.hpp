#pragma once

#include <algorithm>
#include <limits>

#include "residua/backends/host/executor.hpp"
#include "residua/core/view.hpp"
#include "residua/grids/integer_grid.hpp"

namespace residua {

/// Rounds activations to b bits as they come ("fake quantization": codes decoded at once), one scale for each
/// token or for each group of its features, as QuaRot, SpinQuant, GPTAQ and ResComp do.
///
/// With low = clip min(0, x), high = clip max(0, x) over a group of one token, and L = 2^b - 1:
///
///     Symmetry::None        scale = (high - low) / L, zero = round(-low / scale)
///     Symmetry::Restricted  scale = max(-low, high) / (2^(b-1) - 1), zero = 2^(b-1)
///     x' = scale (clamp(round(x / scale) + zero, 0, L) - zero)
///
/// which is IntegerGrid's arithmetic (Symmetry::FullRange included), with the scale rounded to float.
/// Rounding is to nearest, ties to even. A group of zeros stays zero. A group that holds NaN or an infinity
/// becomes NaN throughout, so that trouble upstream shows.
///
/// K and V caches are quantized the same way, with group_size = head_dim.
struct ActivationQuantizer {
    int bits = 8;
    Index group_size = -1;  ///< consecutive features; -1: all. The last group of a row may be shorter
    Symmetry symmetry = Symmetry::None;
    double clip_ratio = 1;  ///< of the range that is covered

    void validate() const {
        require(bits >= 2 && bits <= 8, "ActivationQuantizer: bits is", bits, "2 to 8");
        require(group_size == -1 || group_size >= 1, "ActivationQuantizer: group_size is", group_size,
                "positive, or -1 for one group");
        require(clip_ratio > 0 && clip_ratio <= 1, "ActivationQuantizer: clip_ratio is", clip_ratio,
                "a number in (0, 1]");
    }

    /// x <- x' for x (tokens, features), in place. Reads each value twice from cache and memory once.
    template <Real T>
    void apply(MatrixView<T> x, const Executor& executor = Executor()) const {
        validate();
        detail::require_matrix("ActivationQuantizer::apply: x", x, x.cols);
        if (x.rows == 0 || x.cols == 0) return;
        const Index width = group_size == -1 ? x.cols : std::min(group_size, x.cols);
        const Index chunk = std::max<Index>(1, Index(1 << 15) / x.cols);
        executor((x.rows + chunk - 1) / chunk, [&](Index task) {
            for (Index i = task * chunk; i < std::min(x.rows, (task + 1) * chunk); ++i) {
                for (Index j = 0; j < x.cols; j += width)
                    round_group(x.row(i) + j, std::min(width, x.cols - j));
            }
        });
    }

  private:
    template <Real T>
    void round_group(T* x, Index count) const {
        constexpr Index lanes = 64 / static_cast<Index>(sizeof(T));  // one compare for each, as vector code
        using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
        constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
        T low[lanes] = {};
        T high[lanes] = {};
        Bits special[lanes] = {};
        const auto visit = [&](const T* values, Index active) {
            for (Index l = 0; l < active; ++l) {
                const T value = values[l];
                low[l] = value < low[l] ? value : low[l];
                high[l] = value > high[l] ? value : high[l];
                special[l] |= (std::bit_cast<Bits>(value) & exponent) == exponent ? Bits(1) : Bits(0);
            }
        };
        Index i = 0;
        for (; i + lanes <= count; i += lanes) visit(x + i, lanes);
        visit(x + i, count - i);

        if (*std::max_element(special, special + lanes) != 0) {
            std::fill_n(x, count, std::numeric_limits<T>::quiet_NaN());
            return;
        }
        const IntegerGrid grid = {.bits = bits, .symmetry = symmetry};
        const T clip = static_cast<T>(clip_ratio);
        const GridParams<T> params = grid.params(clip * *std::min_element(low, low + lanes),
                                                 clip * *std::max_element(high, high + lanes));
        for (Index k = 0; k < count; ++k) x[k] = grid.decode(grid.encode(x[k], params), params);
    }
};

}  // namespace residua
