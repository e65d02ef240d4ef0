#include "cuda/backends.hpp"
//
#include "../solver/report_test.cpp"
