#include "cuda/backends.hpp"
//
#include "../solver/golden_test.cpp"
