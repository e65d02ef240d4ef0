#include "cuda/backends.hpp"
//
#include "../moments/moments_test.cpp"
