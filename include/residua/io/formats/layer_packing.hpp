#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/core/minifloat.hpp"
#include "residua/core/sizes.hpp"
#include "residua/core/view.hpp"
#include "residua/solver/quantized_layer.hpp"

/// What the packers of all formats have in common.
namespace residua::io::detail {

/// For formats without a group index: the size of groups of neighbours that divide a row. Throws
/// std::invalid_argument for other groups and, unless `size` is 0, for another size.
template <class G>
Index require_sequential_groups(const QuantizedLayer<G>& layer, const std::string& format, Index size = 0) {
    layer.validate();
    const Grouping grouping = layer.grouping();
    require(grouping.is_sequential, format + ": groups are", "scattered over the columns",
            "runs of neighbours, for the format has no group index (solve with Ordering::Natural, "
            "Ordering::GroupAware or static_groups)");
    require(size == 0 || grouping.size == size, format + ": the group size is", grouping.size,
            std::to_string(size) + " (SolverOptions::group_size)");
    require(layer.cols % grouping.size == 0, format + ": the columns are", layer.cols,
            "a multiple of the group size, " + std::to_string(grouping.size));
    return grouping.size;
}

/// `scale` as it will be stored. Throws std::invalid_argument where that would change it: the codes were
/// chosen for the scale as it is.
template <class To>
[[nodiscard]] To exact_scale(float scale, const std::string& format, const std::string& type) {
    const To stored(scale);
    require(scale > 0 && residua::detail::is_finite(scale) && static_cast<float>(stored) == scale,
            format + ": a scale is", scale,
            "a positive number that " + type + " holds exactly (ScaleType has scales rounded in the fit)");
    return stored;
}

/// `scale` as an exponent. Throws std::invalid_argument for anything but a power of two that E8M0 holds.
[[nodiscard]] inline std::uint8_t exact_exponent(float scale) {
    const int code = E8M0::encode(scale);
    require(scale > 0 && code >= E8M0::min_code && code <= E8M0::max_code && E8M0::decode(code) == scale,
            "MXFP4: a scale is", scale, "a power of two from 2^-126 to 2^127");
    return static_cast<std::uint8_t>(code);
}

/// The inverse of exact_exponent(). Throws std::invalid_argument for the exponents that no fit makes.
[[nodiscard]] inline float scale_of_exponent(std::uint8_t code) {
    require(code >= E8M0::min_code && code <= E8M0::max_code, "MXFP4: the code of a scale is", int(code),
            "1 to 254");
    return E8M0::decode(code);
}

/// Zeros of an integer grid, transposed: (G, m). Throws std::invalid_argument for zeros that are no codes.
template <class G>
[[nodiscard]] std::vector<Code> zero_codes(const QuantizedLayer<G>& layer, const std::string& format) {
    std::vector<Code> codes(layer.zeros.size());
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g) {
            const float zero = layer.params(r, g).zero;
            const bool is_code = zero >= 0 && zero < static_cast<float>(layer.grid.levels()) &&
                                 zero == static_cast<float>(static_cast<Code>(zero));
            require(is_code, format + ": a zero is", zero,
                    "a whole number from 0 to " + std::to_string(layer.grid.levels() - 1));
            codes[static_cast<std::size_t>(g * layer.rows + r)] = static_cast<Code>(zero);
        }
    }
    return codes;
}

/// The inverse of zero_codes(), for zeros that were stored less `offset`.
template <class G>
void set_zeros(QuantizedLayer<G>& layer, const std::vector<Code>& codes, int offset = 0) {
    for (Index r = 0; r < layer.rows; ++r) {
        for (Index g = 0; g < layer.groups; ++g)
            layer.zeros[static_cast<std::size_t>(r * layer.groups + g)] =
                static_cast<float>(codes[static_cast<std::size_t>(g * layer.rows + r)] + offset);
    }
}

/// Throws std::invalid_argument unless `what`, a member of a packed layer, has `expected` elements.
inline void require_elements(const std::string& what, std::size_t size, Index expected) {
    require(std::cmp_equal(size, expected), what + " has", std::to_string(size) + " elements",
            std::to_string(expected));
}

/// Throws std::invalid_argument unless `what` has rows and columns whose product is the size of something.
inline void require_extents(const std::string& what, Index rows, Index cols) {
    require(rows >= 1, what + ": rows is", rows, "at least 1");
    require(cols >= 1, what + ": cols is", cols, "at least 1");
    require(residua::detail::product_fits(rows, cols, sizeof(float)), what + ": rows times cols is",
            std::to_string(rows) + " * " + std::to_string(cols), "fewer than 2^61");
}

/// Integers of a file as the words that codes are packed in, (rows, cols).
[[nodiscard]] inline MatrixView<std::uint32_t> words_of(std::vector<std::int32_t>& integers, Index rows,
                                                        Index cols) {
    return {reinterpret_cast<std::uint32_t*>(integers.data()), rows, cols};
}
[[nodiscard]] inline MatrixView<const std::uint32_t> words_of(const std::vector<std::int32_t>& integers,
                                                              Index rows, Index cols) {
    return {reinterpret_cast<const std::uint32_t*>(integers.data()), rows, cols};
}

}  // namespace residua::io::detail
