function(residua_add_interface name)
    add_library(residua_${name} INTERFACE)
    add_library(residua::${name} ALIAS residua_${name})
    set_target_properties(residua_${name} PROPERTIES EXPORT_NAME ${name})
    target_compile_features(residua_${name} INTERFACE cxx_std_20)
    target_include_directories(residua_${name} INTERFACE
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
        $<INSTALL_INTERFACE:include>)
endfunction()

residua_add_interface(residua)
target_link_libraries(residua_residua INTERFACE Eigen3::Eigen)
if(RESIDUA_BLAS)
    target_link_libraries(residua_residua INTERFACE LAPACK::LAPACK BLAS::BLAS)
    target_compile_definitions(residua_residua INTERFACE EIGEN_USE_BLAS)
endif()
if(RESIDUA_ONEDNN)
    target_link_libraries(residua_residua INTERFACE DNNL::dnnl)
    target_compile_definitions(residua_residua INTERFACE RESIDUA_ONEDNN)
endif()

if(TARGET nlohmann_json::nlohmann_json)
    residua_add_interface(io)
    target_link_libraries(residua_io INTERFACE nlohmann_json::nlohmann_json)
endif()

if(RESIDUA_CUDA)
    residua_add_interface(cuda)
    target_link_libraries(residua_cuda INTERFACE residua_residua CUDA::cublas CUDA::cusolver CUDA::cudart)
    if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
        target_compile_features(residua_cuda INTERFACE cuda_std_20)
    else()
        # CMake before 3.25.2 does not know that nvcc speaks C++20.
        target_compile_options(residua_cuda INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-std=c++20>)
    endif()
    # Grids and methods are constexpr functions that kernels call too.
    target_compile_options(residua_cuda INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:--expt-relaxed-constexpr>)
endif()

# The communicators of residua/distributed.hpp that need an engine; with residua::residua or residua::cuda.
if(RESIDUA_MPI)
    residua_add_interface(mpi)
    target_link_libraries(residua_mpi INTERFACE MPI::MPI_CXX)
    target_compile_definitions(residua_mpi INTERFACE RESIDUA_MPI)
endif()

if(RESIDUA_NCCL)
    residua_add_interface(nccl)
    target_link_libraries(residua_nccl INTERFACE residua_cuda ${NCCL_LIBRARY})
    target_include_directories(residua_nccl INTERFACE $<BUILD_INTERFACE:${NCCL_INCLUDE_DIR}>)
    target_compile_definitions(residua_nccl INTERFACE RESIDUA_NCCL)
endif()
