#include "distributed.cpp"
