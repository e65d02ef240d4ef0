// expect: -ffast-math and -ffinite-math-only assume away NaN and infinity
#define __FAST_MATH__ 1  // as -ffast-math does
#include "residua/residua.hpp"
