#include <cstdio>
#include <random>
#include <residua/residua.hpp>
#include <vector>

int main() {
    // stand-ins for what an engine has: weights (out, in) and a batch of the layer's inputs (tokens, in)
    constexpr residua::Index out = 64, in = 256, tokens = 1024;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> w(out * in), x(tokens * in);
    for (float& value : w) value = normal(random);
    for (float& value : x) value = normal(random);

    residua::EigenBackend cpu;
    residua::GPTQSolver<float, residua::EigenBackend> solver(cpu, in);
    solver.accumulate(residua::MatrixView<const float>(x.data(), tokens, in));  // once per batch
    const auto q =
        solver.quantize(residua::MatrixView<const float>(w.data(), out, in), residua::IntegerGrid{.bits = 4});
    if (!q) return std::puts(to_string(q.report.status).data()), 1;
    std::printf("w(0, 0) = %g ~ %g * (%d - %g)\n", double(w[0]), double(q.scales(0, 0)), int(q.codes(0, 0)),
                double(q.zeros(0, 0)));
    std::printf("squared output error: %.4g rounded to nearest, %.4g by GPTQ\n",
                q.report.round_to_nearest->symmetric, q.report.objective->symmetric);
}
