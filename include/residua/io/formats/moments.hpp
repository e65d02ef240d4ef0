#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/io/safetensors/file.hpp"
#include "residua/io/safetensors/writer.hpp"
#include "residua/io/tensor_shape.hpp"
#include "residua/solver/moments.hpp"

namespace residua::io {

/// Writes the moments of a layer's inputs as a safetensors file, from which read_moments() makes the same
/// again, bit for bit. For n = in_features:
///
///     tokens        int64 ()  tokens of positive weight
///     gram          T (n, n)  H = sum_t w_t x_t x_t', both triangles
///     cross         T (n, n)  D = sum_t w_t (x_fp_t - x_t) x_t', with reference inputs only
///     stream_cross  T (m, n)  D_h = sum_t w_t (h_fp_t - h_t) x_t', with the residual stream only
///
/// Takes n^2 or m n elements of host memory, whatever the backend. Atomic; throws FileError where the system
/// refuses, std::invalid_argument for moments that a solver has used up.
template <Real T, Backend<T> B>
void write_moments(const std::filesystem::path& path, const Moments<T, B>& moments) {
    const MatrixView<const T> gram = moments.gram();
    const Index n = moments.in_features();
    require(gram.rows == n, "write_moments: the moments were", "used up by a solver",
            "moments with their memory");

    std::vector<TensorSpec> tensors = {{"tokens", DType::I64, {}}, {"gram", dtype_of<T>(), {n, n}}};
    if (moments.has_reference()) tensors.push_back({"cross", dtype_of<T>(), {n, n}});
    if (moments.has_residual_stream())
        tensors.push_back({"stream_cross", dtype_of<T>(), {moments.stream_cross().rows, n}});
    SafetensorsWriter writer(path, std::move(tensors), {{"format", "residua.moments"}});
    const std::int64_t tokens[] = {moments.tokens()};
    writer.append("tokens", tokens);
    writer.append("gram", moments.backend().read(gram));
    if (moments.has_reference()) writer.append("cross", moments.backend().read(moments.cross()));
    if (moments.has_residual_stream())
        writer.append("stream_cross", moments.backend().read(moments.stream_cross()));
    writer.commit();
}

namespace detail {

/// Throws FormatError where the elements (i, j) and (j, i) of `gram` differ. NaN and infinity are for the
/// solver to report. In tiles, for a column of a large matrix uses a cache line up for each element.
template <Real T>
void expect_symmetric(const TensorTable& file, MatrixView<const T> gram) {
    constexpr Index tile = 64;
    for (Index first = 0; first < gram.rows; first += tile) {
        for (Index i = first; i < gram.rows; ++i) {
            for (Index j = first; j < std::min(i, first + tile); ++j) {
                const T lower = gram(i, j);
                const T upper = gram(j, i);
                if (lower != upper && residua::detail::is_finite(lower) && residua::detail::is_finite(upper))
                    malformed(file.source(), "tensor 'gram' has ", lower, " at (", i, ", ", j, ") and ",
                              upper, " at (", j, ", ", i, "), expected a symmetric matrix");
            }
        }
    }
}

}  // namespace detail

/// Reads what write_moments() wrote, into memory of `backend`, which must outlive the result. T is the file's
/// own type: read_moments<double>(backend, path) for moments in double.
///
/// Throws FileError where the file cannot be read, and FormatError where it is malformed, tokens or gram is
/// missing, a tensor is of another dtype or shape, gram is not symmetric, or tokens is negative or beyond 2^53.
template <Real T = float, Backend<T> B>
[[nodiscard]] Moments<T, B> read_moments(B& backend, const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    const Index n = detail::matrix_shape(file, "gram").front();
    detail::expect_shape(file, "gram", {n, n});
    const MatrixView<const T> gram = file.matrix_view<T>("gram");
    detail::expect_symmetric(file, gram);

    MatrixView<const T> cross;
    if (file.contains("cross")) {
        detail::expect_shape(file, "cross", {n, n});
        cross = file.matrix_view<T>("cross");
    }
    MatrixView<const T> stream_cross;
    if (file.contains("stream_cross")) {
        detail::expect_shape(file, "stream_cross", {detail::matrix_shape(file, "stream_cross").front(), n});
        stream_cross = file.matrix_view<T>("stream_cross");
    }

    detail::expect_shape(file, "tokens", {});
    const std::int64_t tokens = file.read<std::int64_t>("tokens").front();
    if (tokens < 0 || tokens > Moments<T, B>::most_tokens)
        detail::malformed(file.source(), "tensor 'tokens' holds ", tokens, ", expected 0 to 2^53");
    return Moments<T, B>(backend, gram, cross, static_cast<Index>(tokens), stream_cross);
}

}  // namespace residua::io
