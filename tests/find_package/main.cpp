#include <iostream>
#include <vector>

#include <residua/core/version.hpp>
#include <residua/core/view.hpp>

int main() {
    std::vector<float> weights(6, 1.0f);
    const residua::MatrixView<const float> view(weights.data(), 2, 3);
    std::cout << "residua " << residua::version.major << '.' << residua::version.minor << ": " << view.rows
              << " x " << view.cols << '\n';
}
