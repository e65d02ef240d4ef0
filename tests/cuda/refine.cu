#include "cuda/backends.hpp"
//
#include "../solver/refine_test.cpp"
