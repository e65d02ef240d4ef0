#include "cuda/backends.hpp"
//
#include "../solver/final_norm_test.cpp"
