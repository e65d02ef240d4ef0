// expect: satisfaction of 'Real<|does not satisfy 'Real'
#include "residua/backends/eigen.hpp"
#include "residua/solver/solver.hpp"

residua::GPTQSolver<int, residua::EigenBackend>* solver = nullptr;
