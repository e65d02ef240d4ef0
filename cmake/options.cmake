option(RESIDUA_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(RESIDUA_BUILD_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(RESIDUA_BUILD_BENCHMARKS "Build the benchmarks" OFF)
option(RESIDUA_INSTALL "Generate the install rules" ${PROJECT_IS_TOP_LEVEL})

option(RESIDUA_CUDA "Define residua::cuda (needs nvcc, cuBLAS and cuSOLVER)" OFF)
option(RESIDUA_MPI "Define residua::mpi (needs MPI 3)" OFF)
option(RESIDUA_NCCL "Define residua::nccl (needs RESIDUA_CUDA and NCCL)" OFF)
option(RESIDUA_LLAMA_CPP "Build the example gguf_quantize (needs llama.cpp: cmake/llama_cpp.sh)" OFF)
option(RESIDUA_BLAS "Link BLAS and LAPACK to residua::residua and define EIGEN_USE_BLAS" OFF)

# These concern this project's own programs, never its users.
option(RESIDUA_OPENMP "Link OpenMP to tests, examples and benchmarks where it is found" ON)
option(RESIDUA_NATIVE "Compile examples and benchmarks with -march=native" OFF)
option(RESIDUA_WERROR "Treat warnings as errors" OFF)
set(RESIDUA_TEST_UNITS 0 CACHE STRING "Translation units that the tests of a folder are compiled in; 0: one a file")
option(RESIDUA_TEST_DEVICE "Link all CUDA tests; OFF, for machines without a device: those that show that they skip" ON)
option(RESIDUA_TEST_FLOAT_ONLY "Compile tests that run in float and in double in float alone" OFF)
set(RESIDUA_SANITIZE "" CACHE STRING "Sanitizers, for example address;undefined")

if(PROJECT_IS_TOP_LEVEL)
    set(CMAKE_CXX_EXTENSIONS OFF)
    set(CMAKE_CUDA_EXTENSIONS OFF)
endif()
