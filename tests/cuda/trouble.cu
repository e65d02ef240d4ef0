#include "cuda/backends.hpp"
//
#include "../solver/trouble_test.cpp"
