#include "cuda/backends.hpp"
//
#include "../solver/invariants_test.cpp"
