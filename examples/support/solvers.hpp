#pragma once

#include <residua/residua.hpp>

/// The library's functions by which programs quantize, under names of their own: where they work in float on
/// the CPU and onto integers, as most programs here do, they are compiled once (solvers.cpp) instead of in
/// every program.
namespace compiled {

template <class B>
using Moments = residua::Moments<float, B>;
template <class M, class B>
using Solver = residua::Solver<M, float, B>;
template <class B, class G = residua::IntegerGrid>
using Quantized = residua::QuantizedMatrix<float, B, G>;
using Cpu = residua::EigenBackend;
using Values = residua::MatrixView<const float>;

/// Adds tokens x, and x_fp and the residual stream unless they are empty.
template <class B, class In>
void accumulate(Moments<B>& moments, residua::MatrixView<const In> x, residua::MatrixView<const In> x_fp,
                const residua::ResidualStream<In>& stream = {}) {
    if (stream.h.data) {
        x_fp.data ? moments.accumulate(x, x_fp, stream) : moments.accumulate(x, stream);
    } else {
        x_fp.data ? moments.accumulate(x, x_fp) : moments.accumulate(x);
    }
}
void accumulate(Moments<Cpu>& moments, Values x, Values x_fp,
                const residua::ResidualStream<float>& stream = {});

/// The same, to the solver's own moments.
template <class M, class B, class In>
void accumulate(Solver<M, B>& solver, residua::MatrixView<const In> x, residua::MatrixView<const In> x_fp) {
    x_fp.data ? solver.accumulate(x, x_fp) : solver.accumulate(x);
}
template <class M>
void accumulate(Solver<M, Cpu>& solver, Values x, Values x_fp);

template <class M, class B, class In, class G>
Quantized<B, G> quantize(const Solver<M, B>& solver, residua::MatrixView<const In> weights, const G& grid) {
    return solver.quantize(weights, grid);
}
template <class M>
Quantized<Cpu> quantize(const Solver<M, Cpu>& solver, Values weights, const residua::IntegerGrid& grid);

/// Rows of a layer, `first` and those behind it.
template <class M, class B, class In, class G>
Quantized<B, G> quantize_rows(const Solver<M, B>& solver, residua::MatrixView<const In> weights,
                              residua::Index first, const G& grid) {
    return solver.quantize_rows(weights, first, grid);
}
template <class M>
Quantized<Cpu> quantize_rows(const Solver<M, Cpu>& solver, Values weights, residua::Index first,
                             const residua::IntegerGrid& grid);

template <class M, class B, class In, class G>
Quantized<B, G> quantize_and_consume(Solver<M, B>& solver, residua::MatrixView<const In> weights,
                                     const G& grid) {
    return solver.quantize_and_consume(weights, grid);
}
template <class M>
Quantized<Cpu> quantize_and_consume(Solver<M, Cpu>& solver, Values weights, const residua::IntegerGrid& grid);

template <class B, class G>
Quantized<B, G> round_weights(B& backend, Values weights, const G& grid, residua::Index group_size) {
    return residua::round_weights<float>(backend, weights, grid, group_size);
}
Quantized<Cpu> round_weights(Cpu& backend, Values weights, const residua::IntegerGrid& grid,
                             residua::Index group_size);

template <class B>
residua::NormGains<float> final_norm_gains(const Moments<B>& moments, Values head) {
    return residua::final_norm_gains(moments, head);
}
residua::NormGains<float> final_norm_gains(const Moments<Cpu>& moments, Values head);

template <class B, class G>
residua::Objective objective(const Moments<B>& moments, Values weights, const Quantized<B, G>& quantized) {
    return residua::objective(moments, weights, quantized);
}
residua::Objective objective(const Moments<Cpu>& moments, Values weights, const Quantized<Cpu>& quantized);

}  // namespace compiled
