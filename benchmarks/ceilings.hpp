#pragma once

#include <limits>

#include "support.hpp"

/// What bounds a solve: the rates of the matrix product, the factorization and the triangular solve of this
/// backend (Eigen, or cuBLAS and cuSOLVER), measured once in each run.
namespace bench {

/// Operations that an algorithm needs, by the ceiling that they meet.
struct Operations {
    double products = 0;  ///< in matrix products and in the recurrence
    double inputs = 0;    ///< in matrix products of activations, at input_rate
    double input_rate = 0;
    double solves = 0;          ///< in triangular solves with an (n, n) factor
    double factorizations = 0;  ///< of a Cholesky factorization of (n, n)
    Index n = 0;

    double all() const { return products + inputs + solves + factorizations * double(n * n) * double(n) / 3; }
};

template <class Work>
double best_seconds(int repetitions, Work work) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repetitions; ++i) {
        const auto start = backend().timestamp();
        work();
        best = std::min(best, backend().seconds(start, backend().timestamp()));
    }
    return best;
}

/// FLOP/s of a large product of matrices of In, summed in Scalar. On a CPU 16-bit inputs are converted first.
template <class In>
double product_rate();

/// Seconds of a Cholesky factorization of (n, n), and FLOP/s of a triangular solve with the factor.
struct FactorCeilings {
    double cholesky_seconds;
    double solve_rate;
};

const FactorCeilings& factor_ceilings(Index n);

/// Seconds that `operations` take at the rates of the ceilings, one after the other.
inline double floor_seconds(const Operations& operations) {
    double seconds = operations.products / product_rate<Scalar>();
    if (operations.inputs > 0) seconds += operations.inputs / operations.input_rate;
    if (operations.factorizations > 0)
        seconds += operations.factorizations * factor_ceilings(operations.n).cholesky_seconds;
    if (operations.solves > 0) seconds += operations.solves / factor_ceilings(operations.n).solve_rate;
    return seconds;
}

}  // namespace bench

#ifdef __CUDACC__
#include "ceilings.cpp"  // programs for the GPU are one translation unit
#endif
