// expect: satisfaction of 'Rule<|does not satisfy 'Rule'
#include "residua/backend/eigen.hpp"
#include "residua/solver/solver.hpp"

struct Untargeted {
    static constexpr const char* name = "untargeted";
    static constexpr bool residual_feedback = false;
    template <class T>
    T fed_back(T q, T, T) const {
        return q;
    }
    template <class T>
    T fed_forward(T, T) const {
        return T(0);
    }
    double shift() const { return 0; }
    void validate() const {}
};

residua::Solver<Untargeted, float, residua::EigenBackend>* solver = nullptr;
