// Every kernel, compiled for every architecture that we claim; never run.

#include "residua/cuda.hpp"

namespace residua {

bool use_every_kernel(CudaBackend& gpu, const HadamardTransform& transform, MatrixView<bfloat16> x,
                      MatrixView<float16> y, MatrixView<float> z, MatrixView<Code> codes,
                      MatrixView<std::uint32_t> words) {
    const MatrixView<const bfloat16> x_fp(x);
    const MatrixView<const float16> y_fp(y);
    const MatrixView<const float> z_fp(z);
    const CudaHadamard hadamard(gpu, transform);
    hadamard.apply(x_fp, x);
    hadamard.apply(y_fp, y);
    hadamard.apply(z_fp, z);
    cuda_pack_rows_transposed(gpu.stream(), MatrixView<const Code>(codes), 3, words);

    SolverOptions options;
    options.refinement = {.rounds = 1, .refit_scales = true};
    Solver<ResidualComp, float, CudaBackend> solver(gpu, x.cols, options);  // both kinds of feedback
    solver.accumulate(x, x_fp);
    solver.accumulate(y, y_fp);
    solver.accumulate(z, z_fp);
    return static_cast<bool>(solver.quantize(x, IntegerGrid{}));
}

bool use_double(CudaBackend& gpu, MatrixView<const double> x, MatrixView<const double> x_fp) {
    Solver<QEP, double, CudaBackend> solver(gpu, x.cols);
    solver.accumulate(x, x_fp);
    return static_cast<bool>(solver.quantize(x, IntegerGrid{}));
}

}  // namespace residua
