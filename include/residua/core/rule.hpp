#pragma once

#include <concepts>
#include <type_traits>

#include "residua/core/types.hpp"

namespace residua {

/// What the columns are quantized towards.
enum class Target {
    Original,   ///< t = W
    Forwarded,  ///< t_j = W_j + sum_{i<j} a_i P_ij, P = triu(D R^-T, strict) R^-1
    Shifted,    ///< t = W + alpha W D H^-1
};

/// A method, as a choice within the recurrence
///
///     c_k = t_k + sum_{i<k} (t_i - s_i) R_ik / R_kk,   q_k = Q(c_k),   H = R R'.
///
/// For a type M to be a Rule, with q_i the quantized, v_i the current and w_i the original weight of column
/// i:
///   1. M::target names the target; anything but Original needs moments with reference inputs.
///   2. m.fed_back(q_i, v_i, w_i) is s_i. M::residual_feedback tells whether it depends on v_i.
///   3. If the target is Forwarded, m.fed_forward(v_i, w_i) is a_i.
///   4. If the target is Shifted, m.shift() is alpha.
///   5. m.validate() throws std::invalid_argument for unusable coefficients; M::name is the method's name.
///   6. M is trivially copyable; fed_back and fed_forward run on host and device.
template <class M>
concept Rule = std::is_trivially_copyable_v<M> && requires(const M rule, float x, double y) {
    { M::name } -> std::convertible_to<const char*>;
    { M::target } -> std::convertible_to<Target>;
    { M::residual_feedback } -> std::convertible_to<bool>;
    { rule.fed_back(x, x, x) } -> std::same_as<float>;
    { rule.fed_back(y, y, y) } -> std::same_as<double>;
    rule.validate();
} &&(M::target != Target::Forwarded ||
     requires(const M rule, float x, double y) {
         { rule.fed_forward(x, x) } -> std::same_as<float>;
         { rule.fed_forward(y, y) } -> std::same_as<double>;
     }) &&
    (M::target != Target::Shifted || requires(const M rule) {
        { rule.shift() } -> std::same_as<double>;
    });

}  // namespace residua
