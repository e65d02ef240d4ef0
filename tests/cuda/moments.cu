#include "cuda/backends.hpp"
//
#include "../solver/moments_test.cpp"
