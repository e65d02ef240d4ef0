// All of the library but CUDA, and an instance of what users call, for compilers that no build covers:
// cmake/reliability.sh compilers, and the step of CI that reads this as C++23.

#include "residua/distributed.hpp"
#include "residua/io.hpp"
#include "residua/residua.hpp"

using namespace residua;

template class residua::Moments<float, EigenBackend>;
template QuantizedMatrix<float, EigenBackend, IntegerGrid> Solver<QEP, float, EigenBackend>::quantize(
    MatrixView<const float>, const IntegerGrid&) const;
template QuantizedMatrix<double, EigenBackend, MXFP4Grid>
Solver<ResidualComp, double, EigenBackend>::quantize(MatrixView<const float>, const MXFP4Grid&) const;
template void residua::all_reduce(Moments<float, EigenBackend>&, SelfCommunicator&, Reduction);
