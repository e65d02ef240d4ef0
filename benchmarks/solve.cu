#include "solve.cpp"
