#include "cuda/backends.hpp"
//
#include "../solver/reference_test.cpp"
