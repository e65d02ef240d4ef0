#include "solvers.hpp"

namespace compiled {

using namespace residua;

void accumulate(Moments<Cpu>& moments, Values x, Values x_fp, const ResidualStream<float>& stream) {
    accumulate<Cpu, float>(moments, x, x_fp, stream);
}

Quantized<Cpu> round_weights(Cpu& backend, Values weights, const IntegerGrid& grid, Index group_size) {
    return residua::round_weights<float>(backend, weights, grid, group_size);
}

NormGains<float> final_norm_gains(const Moments<Cpu>& moments, Values head) {
    return residua::final_norm_gains(moments, head);
}

Objective objective(const Moments<Cpu>& moments, Values weights, const Quantized<Cpu>& quantized) {
    return residua::objective(moments, weights, quantized);
}

template <class M>
void accumulate(Solver<M, Cpu>& solver, Values x, Values x_fp) {
    accumulate<M, Cpu, float>(solver, x, x_fp);
}

template <class M>
Quantized<Cpu> quantize(const Solver<M, Cpu>& solver, Values weights, const IntegerGrid& grid) {
    return solver.quantize(weights, grid);
}

template <class M>
Quantized<Cpu> quantize_rows(const Solver<M, Cpu>& solver, Values weights, Index first,
                             const IntegerGrid& grid) {
    return solver.quantize_rows(weights, first, grid);
}

template <class M>
Quantized<Cpu> quantize_and_consume(Solver<M, Cpu>& solver, Values weights, const IntegerGrid& grid) {
    return solver.quantize_and_consume(weights, grid);
}

#define RESIDUA_COMPILE(Method)                                                                       \
    template void accumulate<Method>(Solver<Method, Cpu>&, Values, Values);                           \
    template Quantized<Cpu> quantize<Method>(const Solver<Method, Cpu>&, Values, const IntegerGrid&); \
    template Quantized<Cpu> quantize_rows<Method>(const Solver<Method, Cpu>&, Values, Index,          \
                                                  const IntegerGrid&);                                \
    template Quantized<Cpu> quantize_and_consume<Method>(Solver<Method, Cpu>&, Values, const IntegerGrid&);
RESIDUA_COMPILE(GPTQ)
RESIDUA_COMPILE(GPTQResidualComp)
RESIDUA_COMPILE(GPTAQ)
RESIDUA_COMPILE(ResidualComp)
RESIDUA_COMPILE(QEP)
RESIDUA_COMPILE(Qronos)

}  // namespace compiled
