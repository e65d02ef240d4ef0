// expect: read-only location|returns a const value
#include "residua/core/view.hpp"

void write(residua::MatrixView<const float> view) { view(0, 0) = 1.0f; }
