#include "cuda/backends.hpp"
//
#include "../backends/operations_test.cpp"
