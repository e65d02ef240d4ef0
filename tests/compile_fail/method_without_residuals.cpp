// expect: satisfaction of 'Method<|does not satisfy 'Method'
#include "residua/backends/eigen.hpp"
#include "residua/solver/solver.hpp"

struct WithoutResiduals {
    static constexpr const char* name = "without residuals";
    template <class T>
    T fed_back(T q, T, T) const {
        return q;
    }
    template <class T>
    T residual(T, T) const {
        return T(0);
    }
    void validate() const {}
};

residua::Solver<WithoutResiduals, float, residua::EigenBackend>* solver = nullptr;
