#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <residua/residua.hpp>
#include <vector>

/// What the fuzzer of the solver runs, here so that the ordinary tests replay its corpus, too.
namespace residua::fuzz {

/// Numbers of the input, one after the other; zeros at its end.
class Numbers {
  public:
    Numbers(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    template <class T>
    T number() {
        T value = 0;
        const std::size_t size = std::min(sizeof value, size_);
        std::memcpy(&value, data_, size);
        data_ += size;
        size_ -= size;
        return value;
    }
    int small(int limit) { return number<std::uint8_t>() % limit; }

    /// A plain number, or any bits.
    double real() { return small(8) == 0 ? number<double>() : double(number<std::int8_t>()) / 32; }

    std::vector<float> reals(Index count) {
        const bool wild = small(4) == 0;
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) {
            value = float(number<std::int8_t>());
            if (wild && small(16) == 0) value = number<float>();
        }
        return values;
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
};

template <class Result>
void check_result(const Result& q, Index m, Index n) {
    if (!q) {
        if (q.codes.rows() != 0) std::abort();
        return;
    }
    if (q.codes.rows() != m || q.codes.cols() != n) std::abort();
    for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) {
            const auto g = q.group_index[static_cast<std::size_t>(j)];
            const float value =
                q.grid.decode(int(q.codes(i, j)), GridParams<float>{q.scales(i, g), q.zeros(i, g)});
            if (q.codes(i, j) >= q.grid.levels() || !std::isfinite(value)) std::abort();
        }
    }
}

template <class Method, class G>
void solve(Numbers& in, const Method& method, const G& grid) {
    const Index m = 1 + in.small(6), n = 1 + in.small(40), tokens = in.small(20);
    SolverOptions options;
    options.group_size = in.small(2) == 0 ? in.small(45) - 2 : in.number<Index>();
    options.block_size = in.small(2) == 0 ? in.small(45) : in.number<Index>();
    options.damping.initial = std::abs(in.real());
    options.damping.max_retries = in.small(8);
    options.ordering = Ordering(in.small(3));
    options.static_groups = in.small(2) != 0;
    options.published = {ResidualView(in.small(3)), GroupScales(in.small(2))};
    options.refinement = {
        .rounds = in.small(3), .sweeps_per_round = in.small(4), .refit_scales = in.small(2) != 0};
    options.max_dead_inputs = in.small(4) == 0 ? in.real() : 1;
    options.on_failure = OnFailure(in.small(2));
    options.report_objective = in.small(2) != 0;
    const bool corrects_stream = in.small(4) == 0;
    if (corrects_stream) options.stream_alpha = in.real();
    const std::vector<float> w = in.reals(m * n), x = in.reals(tokens * n), x_fp = in.reals(tokens * n);

    EigenBackend cpu{Executor(1)};
    const MatrixView weights(w.data(), m, n), inputs(x.data(), tokens, n), references(x_fp.data(), tokens, n);
    Moments<float, EigenBackend> moments(cpu, n);
    if (corrects_stream) {
        const std::vector<float> h = in.reals(tokens * m), h_fp = in.reals(tokens * m);
        moments.accumulate(
            inputs, references,
            ResidualStream{MatrixView(h.data(), tokens, m), MatrixView(h_fp.data(), tokens, m)});
    } else {
        moments.accumulate(inputs, references);
    }
    const Solver<Method, float, EigenBackend> solver(moments, options, method);
    check_result(solver.quantize(weights, grid), m, n);
}

inline IntegerGrid any_integer_grid(Numbers& in) {
    return {.bits = in.small(10),
            .symmetry = Symmetry(in.small(3)),
            .clip = {.enabled = in.small(2) != 0, .search = ScaleSearch(in.small(2))},
            .scale_type = ScaleType(in.small(3))};
}

inline int run_solver(const std::uint8_t* data, std::size_t size) {
    Numbers in(data, size);
    try {
        switch (in.small(5)) {
            case 0:
                solve(in, GPTQ{}, any_integer_grid(in));
                break;
            case 1:
                solve(in, ResidualComp{.alpha = in.real(), .beta = in.real()}, any_integer_grid(in));
                break;
            case 2:
                solve(in, QEP{.alpha = in.real()}, any_integer_grid(in));
                break;
            case 3:
                solve(in, QEP{.alpha = in.real()}, KQuantGrid<16>{.bits = in.small(10)});
                break;
            default:
                solve(in, Qronos{}, any_integer_grid(in));
        }
    } catch (const std::invalid_argument&) {
    }
    return 0;
}

}  // namespace residua::fuzz
