// expect: satisfaction of 'Grid<|QuantizedMatrix' .with T = float, B = residua::EigenBackend, G = HalfAGrid
#include "residua/backends/eigen.hpp"
#include "residua/solver/solver.hpp"

struct HalfAGrid {
    residua::ClipSearch clip;
    int levels() const { return 16; }
    residua::GridParams<float> params(float, float high) const { return {high, 0}; }
    float decode(int code, residua::GridParams<float> p) const { return p.scale * float(code); }
    void validate() const {}
};

void solve(const residua::GPTQSolver<float, residua::EigenBackend>& solver,
           residua::MatrixView<const float> w) {
    (void)solver.quantize(w, HalfAGrid{});
}
