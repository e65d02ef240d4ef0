#include "cuda/backends.hpp"
//
#include "../solver/stream_test.cpp"
