#pragma once

#include <cmath>

#include "support/layer.hpp"

namespace residua::test {

/// The problem in the original order: minimize tr(E H E'), E = target - Q.
struct Problem {
    reference::Matrix h;       ///< damped
    reference::Matrix target;  ///< (m, n)
    double lambda = 0;         ///< what damping added to the diagonal of h

    double row_objective(const reference::Matrix& q, Index r) const {
        double sum = 0;
        for (Index i = 0; i < h.rows; ++i)
            for (Index j = 0; j < h.rows; ++j)
                sum += (target(r, i) - q(r, i)) * h(i, j) * (target(r, j) - q(r, j));
        return sum;
    }
    double undamped_row(const reference::Matrix& q, Index r) const {
        double squares = 0;
        for (Index i = 0; i < h.rows; ++i) squares += std::pow(target(r, i) - q(r, i), 2);
        return row_objective(q, r) - lambda * squares;
    }
    double undamped(const reference::Matrix& q) const {
        double sum = 0;
        for (Index r = 0; r < target.rows; ++r) sum += undamped_row(q, r);
        return sum;
    }
    double objective(const reference::Matrix& q) const {
        double sum = 0;
        for (Index r = 0; r < target.rows; ++r) sum += row_objective(q, r);
        return sum;
    }
};

/// `alpha`: of the shift.
inline Problem problem_of(const Layer& layer, double alpha, double damping) {
    const reference::Moments sums = reference::moments(layer.x, layer.x_fp);
    const Index n = layer.n;
    double mean = 0;
    for (Index j = 0; j < n; ++j) mean += sums.h(j, j) / double(n);
    Problem problem{sums.h, layer.w, damping * (mean > 0 ? mean : 1)};
    reference::Matrix d = sums.d;
    for (Index j = 0; j < n; ++j) {
        if (sums.h(j, j) == 0) {
            problem.h(j, j) = mean > 0 ? mean : 1;
            for (Index i = 0; i < n; ++i) d(i, j) = d(j, i) = 0;
            for (Index r = 0; r < layer.m; ++r) problem.target(r, j) = 0;
        }
        problem.h(j, j) += problem.lambda;
    }
    if (alpha != 0) {
        const reference::Matrix shift =
            reference::product(reference::product(problem.target, d), reference::inverse(problem.h));
        for (std::size_t i = 0; i < shift.data.size(); ++i) problem.target.data[i] += alpha * shift.data[i];
    }
    return problem;
}

}  // namespace residua::test
