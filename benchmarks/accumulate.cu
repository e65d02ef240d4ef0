#include "accumulate.cpp"
