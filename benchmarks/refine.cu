#include "refine.cpp"
