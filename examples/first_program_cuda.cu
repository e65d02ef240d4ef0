#include <cstdio>
#include <random>
#include <residua/cuda.hpp>
#include <vector>

int main() {
    // stand-ins for what an engine has: weights (out, in), and the same tokens as the layer sees them behind
    // quantized layers and behind full-precision ones (tokens, in). All may be in host or in device memory.
    constexpr residua::Index out = 256, in = 512, tokens = 2048;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> w(out * in), x(tokens * in), x_fp;
    for (float& value : w) value = normal(random);
    for (float& value : x) value = normal(random);
    for (const float value : x) x_fp.push_back(value + 0.1f * normal(random));

    residua::CudaBackend gpu;  // or {{.stream = s, .blas = b}}: the engine's own
    residua::SolverOptions options;
    options.ordering = residua::Ordering::Activation;
    options.refinement.rounds = 2;
    residua::QEPSolver solver(gpu, in, options);
    solver.accumulate(residua::MatrixView(x.data(), tokens, in),
                      residua::MatrixView(x_fp.data(), tokens, in));
    const residua::IntegerGrid grid{.bits = 3, .clip = {.enabled = true}};
    const auto q = solver.quantize(residua::MatrixView(w.data(), out, in), grid);
    if (!q) return std::puts(residua::to_string(q.report.status).data()), 1;
    const std::vector<residua::Code> codes = gpu.read(q.codes.view());  // (out, in); scales and zeros alike
    std::printf("%zu codes; refinement: objective from %g to %g\n", codes.size(),
                q.report.refinement.front().objective, q.report.refinement.back().objective);
}
