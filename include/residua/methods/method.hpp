#pragma once

#include <concepts>
#include <type_traits>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

namespace residua {

/// Which columns i have a residual a_i when column k is quantized.
enum class Residuals {
    None,             ///< none: D is not read
    OfColumnsBefore,  ///< i < k: a_i may depend on the compensated weight of column i
    OfAllColumns,     ///< every i: a_i is known beforehand
};

/// A method, as two choices within the one recurrence over the columns,
///
///     c_k = w_k + ( sum_{i<k} (w_i - s_i) R_ik  +  sum_i a_i M_ik ) / R_kk,    q_k = Q(c_k),
///
/// with H = R R', R upper triangular, and M = D R^-T, the residual matrix. Symbols are columns; w_i is the
/// original and q_i the quantized weight of column i, and v_i its current weight: c_i, unless
/// SolverOptions::published says otherwise. Moments with the residual stream add alpha_h (D_h R^-T)_k to the
/// sums, whatever the method.
///
/// For a type M to be a Method:
///   1. M::residuals names the columns that have a residual; anything but None needs moments with reference
///      inputs.
///   2. m.fed_back(q_i, v_i, w_i) is s_i.
///   3. Unless there are no residuals, m.residual(v_i, w_i) is a_i; with residuals of all columns it does not
///      depend on v_i. It is linear in (v_i, w_i).
///   4. m.validate() throws std::invalid_argument for unusable coefficients; M::name is the method's name.
///   5. M is trivially copyable; fed_back and residual run on host and device.
///   6. Optionally, M::first_column_alone is true: the first column is quantized with all others held at w,
///      c_1 = w_1 + (W D)_1 / H_11. Needs residuals of all columns.
template <class M>
concept Method = std::is_trivially_copyable_v<M> && requires(const M method, float x, double y) {
    { M::name } -> std::convertible_to<const char*>;
    { M::residuals } -> std::convertible_to<Residuals>;
    { method.fed_back(x, x, x) } -> std::same_as<float>;
    { method.fed_back(y, y, y) } -> std::same_as<double>;
    method.validate();
} &&(M::residuals == Residuals::None || requires(const M method, float x, double y) {
    { method.residual(x, x) } -> std::same_as<float>;
    { method.residual(y, y) } -> std::same_as<double>;
});

}  // namespace residua
