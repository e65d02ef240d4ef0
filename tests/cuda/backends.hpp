#pragma once

// Eigen 3.4 marks defaulted functions for the device, which nvcc remarks on.
#pragma nv_diag_suppress 20012

#include "residua/cuda.hpp"
#include "residua/solver/moments.hpp"
#include "support/backends.hpp"

/// Puts the GPU in place of the CPU in the lists that the TEMPLATE_TEST_CASEs run on. Tests of a .cpp file
/// run on the GPU in a .cu file that includes this file first.
#undef RESIDUA_TEST_BACKENDS
#undef RESIDUA_TEST_DOUBLE_BACKENDS
#ifdef RESIDUA_TEST_FLOAT_ONLY
#define RESIDUA_TEST_BACKENDS ::residua::test::CudaFloat
#else
#define RESIDUA_TEST_BACKENDS ::residua::test::CudaDouble, ::residua::test::CudaFloat
#endif
#define RESIDUA_TEST_DOUBLE_BACKENDS ::residua::test::CudaDouble

namespace residua::test {

template <Real T>
struct CudaTag {
    using Scalar = T;
    using Backend = CudaBackend;

    static Backend& get() {
        static Backend backend;
        return backend;
    }
};

struct CudaDouble : CudaTag<double> {};
struct CudaFloat : CudaTag<float> {};

inline bool has_device() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

}  // namespace residua::test
