#include "cuda/backends.hpp"
//
#include "../backend/operations_test.cpp"
