#include "cuda.hpp"

#include <algorithm>
#include <residua/cuda.hpp>

using namespace residua;

namespace {

CudaBackend& backend() {
    static CudaBackend instance;
    return instance;
}

template <class U, class DeviceMatrix>
Matrix<U> to_host(const DeviceMatrix& matrix) {
    const std::vector<U> values = backend().read(matrix.view());
    Matrix<U> copy(matrix.rows(), matrix.cols());
    std::copy(values.begin(), values.end(), copy.data());
    return copy;
}

}  // namespace

template <class M, class G>
CudaResult<G> solve_on_cuda(const Layer& layer, Index calibration, const SolverOptions& options,
                            const M& method, const G& grid) {
    Moments<float, CudaBackend> moments(backend(), layer.in);
    const auto start = backend().timestamp();
    if (layer.x_fp) {
        moments.accumulate(layer.inputs(0, calibration), layer.reference(0, calibration));
    } else {
        moments.accumulate(layer.inputs(0, calibration));
    }
    CudaResult<G> result{.accumulate_seconds = backend().seconds(start, backend().timestamp())};

    const auto q = Solver<M, float, CudaBackend>(moments, options, method).quantize(layer.weights(), grid);
    result.quantized.grid = q.grid;
    result.quantized.report = q.report;
    if (!q) return result;
    result.quantized.codes = to_host<Code>(q.codes);
    result.quantized.scales = to_host<float>(q.scales);
    result.quantized.zeros = to_host<float>(q.zeros);
    result.quantized.group_index = q.group_index;
    return result;
}

#define RESIDUA_SOLVE_ON_CUDA(Method)                                                                        \
    template CudaResult<IntegerGrid> solve_on_cuda(const Layer&, Index, const SolverOptions&, const Method&, \
                                                   const IntegerGrid&);
RESIDUA_SOLVE_ON_CUDA(GPTQ)
RESIDUA_SOLVE_ON_CUDA(GPTQResidualComp)
RESIDUA_SOLVE_ON_CUDA(GPTAQ)
RESIDUA_SOLVE_ON_CUDA(ResidualComp)
RESIDUA_SOLVE_ON_CUDA(QEP)
RESIDUA_SOLVE_ON_CUDA(Qronos)
