#include "cuda/backends.hpp"
//
#include "../io/moments.cpp"
