// expect: satisfaction of 'Real<|does not satisfy 'Real'
#include "residua/backend/eigen.hpp"
#include "residua/solver/solver.hpp"

residua::GPTQSolver<int, residua::EigenBackend>* solver = nullptr;
