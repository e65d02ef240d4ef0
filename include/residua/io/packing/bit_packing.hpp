#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "residua/core/code_packing.hpp"
#include "residua/core/error.hpp"
#include "residua/core/view.hpp"
#include "residua/io/packing/bit_streams.hpp"
#include "residua/io/packing/word_transpose.hpp"

/// Packing of whole matrices of codes, see core/code_packing.hpp for the layout.
namespace residua::io {

using residua::packed_words;

namespace detail {

/// Throws std::invalid_argument unless both are matrices, in memory of their own, and `words` has this shape.
template <class C, class W>
void require_matrices(const std::string& function, MatrixView<C> codes, MatrixView<W> words, Index rows,
                      Index cols) {
    residua::detail::require_matrix(function + ": codes", codes, codes.cols);
    require(words.rows == rows && words.cols == cols, function + ": words has shape",
            std::to_string(words.rows) + " x " + std::to_string(words.cols),
            std::to_string(rows) + " x " + std::to_string(cols));
    residua::detail::require_matrix(function + ": words", words, cols);
    const auto begin = [](const auto& view) { return reinterpret_cast<std::uintptr_t>(view.data); };
    const auto end = [](const auto& view) {
        return reinterpret_cast<std::uintptr_t>(view.data + view.rows * view.stride);
    };
    require(end(codes) <= begin(words) || end(words) <= begin(codes), function + ": words is",
            "in the memory of codes", "memory of its own");
}

/// `seen` is the bitwise or of all codes: the one to name is looked for only where there is one.
inline void require_fitting(const char* what, unsigned seen, MatrixView<const Code> codes, int bits) {
    if (seen >> bits == 0) return;
    for (Index i = 0; i < codes.rows; ++i) {
        for (Index j = 0; j < codes.cols; ++j)
            require(
                codes(i, j) >> bits == 0,
                std::string(what) + " has at (" + std::to_string(i) + ", " + std::to_string(j) + ") the code",
                int(codes(i, j)), "at most " + std::to_string((1 << bits) - 1));
    }
}

/// Columns of codes in a tile of the transposing packers: codes are read well in short runs, but written well
/// only in long ones.
inline constexpr Index packed_tile_columns = 256;
inline constexpr Index unpacked_tile_columns = 1024;

/// Calls body(first row, rows, first column, columns) for each tile. The first tiles have `lead` rows, if not
/// 0.
template <Index TileColumns, class Body>
void for_each_tile(Index rows, Index columns, Index lead, Body body) {
    Index height = 0;
    for (Index r = 0; r < rows; r += height) {
        height = std::min(r == 0 && lead > 0 ? lead : tile_rows, rows - r);
        for (Index c = 0; c < columns; c += TileColumns)
            body(r, height, c, std::min(TileColumns, columns - c));
    }
}

/// Whether the streams of all rows are one stream, without a gap in codes or in words.
[[nodiscard]] inline bool is_one_stream(MatrixView<const Code> codes, int bits,
                                        MatrixView<const std::uint32_t> words) {
    return codes.cols * bits % 32 == 0 && codes.stride == codes.cols && words.stride == words.cols;
}

}  // namespace detail

/// A stream for each row: `codes` (m, n) to `words` (m, packed_words(n, bits)), 1 to 8 bits. Throws
/// std::invalid_argument for codes of more bits, other numbers of bits, other shapes, and matrices that share memory.
inline void pack_rows(MatrixView<const Code> codes, int bits, MatrixView<std::uint32_t> words) {
    detail::require_matrices("pack_rows", codes, words, codes.rows, packed_words(codes.cols, bits));
    detail::with_bits(bits, [&](auto b) {
        if (detail::is_one_stream(codes, b, words)) {
            const unsigned seen = detail::pack_stream<b>(codes.data, codes.rows * codes.cols,
                                                         reinterpret_cast<std::byte*>(words.data));
            return detail::require_fitting("pack_rows: codes", seen, codes, b);
        }
        unsigned seen = 0;
        for (Index i = 0; i < codes.rows; ++i) {
            if (words.cols > 0) words(i, words.cols - 1) = 0;
            seen |=
                detail::pack_stream<b>(codes.row(i), codes.cols, reinterpret_cast<std::byte*>(words.row(i)));
        }
        detail::require_fitting("pack_rows: codes", seen, codes, b);
    });
}

/// The inverse of pack_rows(). Throws std::invalid_argument for other numbers of bits and other shapes.
inline void unpack_rows(MatrixView<const std::uint32_t> words, int bits, MatrixView<Code> codes) {
    detail::require_matrices("unpack_rows", codes, words, codes.rows, packed_words(codes.cols, bits));
    detail::with_bits(bits, [&](auto b) {
        if (detail::is_one_stream(codes, b, words))
            return detail::unpack_stream<b>(reinterpret_cast<const std::byte*>(words.data),
                                            codes.rows * codes.cols, codes.data);
        for (Index i = 0; i < codes.rows; ++i)
            detail::unpack_stream<b>(reinterpret_cast<const std::byte*>(words.row(i)), codes.cols,
                                     codes.row(i));
    });
}

/// The streams of pack_rows() as columns: `codes` (m, n) to `words` (packed_words(n, bits), m). Throws like
/// it. Half as fast as a copy of the codes, or faster.
inline void pack_rows_transposed(MatrixView<const Code> codes, int bits, MatrixView<std::uint32_t> words) {
    detail::require_matrices("pack_rows_transposed", codes, words, packed_words(codes.cols, bits),
                             codes.rows);
    detail::with_bits(bits, [&](auto b) {
        alignas(64) std::byte tile[detail::tile_rows][detail::packed_tile_columns / 8 * b];
        unsigned seen = 0;
        const Index lead = detail::columns_before_line(words);
        detail::for_each_tile<detail::packed_tile_columns>(
            codes.rows, codes.cols, lead, [&](Index r, Index rows, Index c, Index columns) {
                const Index width = packed_words(columns, b);
                const auto target = words.block(c * b / 32, r, width, rows);
                if (b == 8 && columns % 4 == 0) {  // codes are words already
                    const auto* source = reinterpret_cast<const std::byte*>(codes.row(r) + c);
                    return detail::store_transposed(source, codes.stride, target);
                }
                for (Index i = 0; i < rows; ++i) {
                    std::memset(tile[i] + 4 * (width - 1), 0, 4);
                    seen |= detail::pack_stream<b>(codes.row(r + i) + c, columns, tile[i]);
                }
                detail::store_transposed(tile[0], sizeof tile[0], target);
            });
        detail::finish_stores();
        detail::require_fitting("pack_rows_transposed: codes", seen, codes, b);
    });
}

/// The inverse of pack_rows_transposed(). Throws std::invalid_argument for other numbers of bits and other
/// shapes.
inline void unpack_rows_transposed(MatrixView<const std::uint32_t> words, int bits, MatrixView<Code> codes) {
    detail::require_matrices("unpack_rows_transposed", codes, words, packed_words(codes.cols, bits),
                             codes.rows);
    detail::with_bits(bits, [&](auto b) {
        alignas(64) std::byte tile[detail::tile_rows][detail::unpacked_tile_columns / 8 * b];
        const Index lead = detail::columns_before_line(words);
        detail::for_each_tile<detail::unpacked_tile_columns>(
            codes.rows, codes.cols, lead, [&](Index r, Index rows, Index c, Index columns) {
                detail::load_transposed(words.block(c * b / 32, r, packed_words(columns, b), rows), tile[0],
                                        sizeof tile[0]);
                for (Index i = 0; i < rows; ++i)
                    detail::unpack_stream<b>(tile[i], columns, codes.row(r + i) + c);
            });
    });
}

}  // namespace residua::io
