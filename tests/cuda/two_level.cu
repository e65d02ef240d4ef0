#include "cuda/backends.hpp"
//
#include "../solver/two_level_test.cpp"
