#include "cuda/backends.hpp"
//
#include "../solver/consume_test.cpp"
