/// A grid of one's own, in one small file: signed powers of two, so that a product is a shift.
///
/// Nothing of the library changes: every solver, ordering and clip search works on it.

#include <cmath>
#include <cstdio>
#include <random>
#include <residua/residua.hpp>
#include <vector>

/// 2^bits values +-scale * 2^-i, i = 0 ... 2^(bits-1) - 1. Codes of negative values come first, largest
/// first.
struct PowerOfTwoGrid {
    int bits = 4;
    residua::ClipSearch clip = {};

    void validate() const {
        residua::require(bits >= 2 && bits <= 5, "PowerOfTwoGrid: bits is", bits, "2 to 5");
    }

    int levels() const { return 1 << bits; }

    template <residua::Real T>
    residua::GridParams<T> params(T low, T high) const {
        const T absmax = std::max(-low, high);
        return {absmax > 0 ? absmax : T(1), T(0)};
    }

    template <residua::Real T>
    int encode(T x, residua::GridParams<T> p) const {
        // neighbours 2^-i and 2^-(i+1) meet at 3/4 2^-i
        const int half = levels() / 2;
        const T magnitude = std::abs(x) / p.scale;
        int exponent = 0;
        for (int i = 0; i + 1 < half; ++i) exponent += magnitude < std::ldexp(T(0.75), -i);
        return x < 0 ? exponent : levels() - 1 - exponent;
    }

    template <residua::Real T>
    T decode(int code, residua::GridParams<T> p) const {
        const bool negative = code < levels() / 2;
        const T magnitude = std::ldexp(p.scale, -(negative ? code : levels() - 1 - code));
        return negative ? -magnitude : magnitude;
    }
};

static_assert(residua::Grid<PowerOfTwoGrid, float>);

int main() {
    constexpr residua::Index out = 64, in = 256, tokens = 2048;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> w(out * in), x(tokens * in);
    for (float& value : w) value = normal(random);
    for (residua::Index t = 0; t < tokens; ++t) {  // neighbouring inputs are correlated, as in real layers
        float state = 0;
        for (residua::Index j = 0; j < in; ++j)
            x[std::size_t(t * in + j)] = state = 0.8f * state + normal(random);
    }

    residua::EigenBackend cpu;
    residua::GPTQSolver solver(cpu, in, {.report_objective = true});
    solver.accumulate(residua::MatrixView(x.data(), tokens, in));
    for (const int bits : {3, 4, 5}) {
        const auto q = solver.quantize(residua::MatrixView(w.data(), out, in),
                                       PowerOfTwoGrid{.bits = bits, .clip = {.enabled = true}});
        std::printf("%d bits: squared output error %.4g rounded to nearest, %.4g by GPTQ\n", bits,
                    q.report.round_to_nearest->symmetric, *q.report.achieved());
    }
}
