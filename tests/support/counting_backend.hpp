#pragma once

#include "residua/backends/eigen.hpp"

namespace residua::test {

/// Eigen's backend, which counts the operations that cost something.
class CountingBackend : public EigenBackend {
  public:
    struct Counts {
        int factorizations = 0;
        int products = 0;
        int fits = 0;
        int roundings = 0;
        int dots = 0;
    };

    using EigenBackend::EigenBackend;

    template <Real T>
    bool cholesky_upper(MatrixView<T> a) {
        ++counts.factorizations;
        return EigenBackend::cholesky_upper(a);
    }
    template <Real T>
    void multiply(T alpha, Transpose transpose, MatrixView<const T> a, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        ++counts.products;
        EigenBackend::multiply(alpha, transpose, a, x, beta, c);
    }
    template <Real T, Grid<T> G>
    void fit(const G& grid, MatrixView<const T> c, MatrixView<const T> weights,
             std::span<const std::vector<Index>> members, MatrixView<T> scales, MatrixView<T> zeros) {
        ++counts.fits;
        EigenBackend::fit(grid, c, weights, members, scales, zeros);
    }
    template <Real T, Grid<T> G>
    void round(const G& grid, MatrixView<const T> c, std::span<const Index> group_of,
               MatrixView<const T> scales, MatrixView<const T> zeros, MatrixView<Code> codes) {
        ++counts.roundings;
        EigenBackend::round(grid, c, group_of, scales, zeros, codes);
    }
    template <Real T>
    double dot(MatrixView<const T> a, MatrixView<const T> c) {
        ++counts.dots;
        return EigenBackend::dot(a, c);
    }

    Counts counts;
};

struct Counting {
    using Scalar = double;
    using Backend = CountingBackend;

    static Backend& get() {
        static Backend backend;
        return backend;
    }
};

}  // namespace residua::test
