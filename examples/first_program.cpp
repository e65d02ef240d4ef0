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
    residua::GPTQSolver solver(cpu, in);
    solver.accumulate(residua::MatrixView(x.data(), tokens, in));  // once per batch
    const auto q = solver.quantize(residua::MatrixView(w.data(), out, in), residua::IntegerGrid{.bits = 4});
    if (!q) return std::puts(residua::to_string(q.report.status).data()), 1;
    for (residua::Index j = 0; j < 4; ++j) {
        const residua::Index g = q.group_index[std::size_t(j)];
        std::printf("%8.4f ~ %.4f * (%d - %g)\n", double(w[std::size_t(j)]), double(q.scales(0, g)),
                    q.codes(0, j), double(q.zeros(0, g)));
    }
}
