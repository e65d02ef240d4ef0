#pragma once

#include <stdexcept>
#include <utility>

#include "residua/backends/eigen.hpp"

namespace residua::test {

/// What a CountingBackend throws when its operations are used up.
struct InjectedFailure : std::runtime_error {
    InjectedFailure() : std::runtime_error("an operation of the backend failed") {}
};

// Declares an operation of CountingBackend, which does `before` first.
#define RESIDUA_TEST_OPERATION(operation, before)                              \
    template <class... Arguments>                                              \
    decltype(auto) operation(Arguments&&... arguments) {                       \
        use_up_one();                                                          \
        before;                                                                \
        return EigenBackend::operation(std::forward<Arguments>(arguments)...); \
    }

/// Eigen's backend, which counts the operations that cost something, and fails where it is told to.
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

    template <class U>
    Matrix<U> allocate(Index rows, Index cols) {
        use_up_one();
        return EigenBackend::allocate<U>(rows, cols);
    }
    template <class U>
    Matrix<U> workspace(Index rows, Index cols) {
        use_up_one();
        return EigenBackend::workspace<U>(rows, cols);
    }
    RESIDUA_TEST_OPERATION(cholesky_upper, ++counts.factorizations)
    RESIDUA_TEST_OPERATION(multiply, ++counts.products)
    RESIDUA_TEST_OPERATION(fit, ++counts.fits)
    RESIDUA_TEST_OPERATION(round, ++counts.roundings)
    RESIDUA_TEST_OPERATION(dot, ++counts.dots)
    RESIDUA_TEST_OPERATION(read, )
    RESIDUA_TEST_OPERATION(write, )
    RESIDUA_TEST_OPERATION(accumulate_gram, )
    RESIDUA_TEST_OPERATION(accumulate_cross, )
    RESIDUA_TEST_OPERATION(add, )
    RESIDUA_TEST_OPERATION(subtract, )
    RESIDUA_TEST_OPERATION(mirror, )
    RESIDUA_TEST_OPERATION(mirror_lower, )
    RESIDUA_TEST_OPERATION(diagonal, )
    RESIDUA_TEST_OPERATION(set_diagonal, )
    RESIDUA_TEST_OPERATION(permute, )
    RESIDUA_TEST_OPERATION(permute_transposed, )
    RESIDUA_TEST_OPERATION(transpose_in_place, )
    RESIDUA_TEST_OPERATION(clear_row, )
    RESIDUA_TEST_OPERATION(clear_column, )
    RESIDUA_TEST_OPERATION(solve_upper, )
    RESIDUA_TEST_OPERATION(solve_upper_transposed, )
    RESIDUA_TEST_OPERATION(copy, )
    RESIDUA_TEST_OPERATION(set_zero, )
    RESIDUA_TEST_OPERATION(load_columns, )
    RESIDUA_TEST_OPERATION(store_columns, )
    RESIDUA_TEST_OPERATION(transpose, )
    RESIDUA_TEST_OPERATION(subtract_decoded, )
    RESIDUA_TEST_OPERATION(sweep, )
    RESIDUA_TEST_OPERATION(refine, )
    RESIDUA_TEST_OPERATION(refit, )
    RESIDUA_TEST_OPERATION(add_row_dots, )

    Counts counts;
    long operations_left =
        -1;  ///< that succeed, then one throws InjectedFailure; below 0: all of them succeed

  private:
    void use_up_one() {
        if (operations_left == 0) throw InjectedFailure();
        if (operations_left > 0) --operations_left;
    }
};

#undef RESIDUA_TEST_OPERATION

struct Counting {
    using Scalar = double;
    using Backend = CountingBackend;

    static Backend& get() {
        static Backend backend;
        return backend;
    }
};

}  // namespace residua::test
