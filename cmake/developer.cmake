# What this project's own programs share. Nothing here reaches residua::* targets or the installed package.
include(${CMAKE_CURRENT_LIST_DIR}/warnings.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/sanitizers.cmake)

add_library(residua_developer INTERFACE)
target_link_libraries(residua_developer INTERFACE residua_warnings residua_sanitizers)
target_compile_definitions(residua_developer INTERFACE
    RESIDUA_TEST_DATA_DIR="${PROJECT_SOURCE_DIR}/tests/data"
    RESIDUA_EXAMPLE_DATA_DIR="${PROJECT_SOURCE_DIR}/examples/data")

# What g++ and nvcc compile hands Eigen's matrices over to the other. Eigen aligns their memory, and so allocates and frees
# it, by the instructions that a translation unit may use, unless all are told the same.
if(RESIDUA_CUDA)
    target_compile_definitions(residua_developer INTERFACE EIGEN_MAX_ALIGN_BYTES=64)
endif()

if(RESIDUA_OPENMP)
    find_package(OpenMP COMPONENTS CXX)
    if(OpenMP_CXX_FOUND)
        target_link_libraries(residua_developer INTERFACE OpenMP::OpenMP_CXX)
        # Inline functions must be the same in every translation unit, also in those that nvcc compiles.
        target_compile_options(residua_developer INTERFACE
            $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)
    endif()
endif()

# residua_add_program(<name> SOURCES <file>... [LIBRARIES <target>...] [CUDA])
function(residua_add_program name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "CUDA" "" "SOURCES;LIBRARIES")
    add_executable(${name} ${arg_SOURCES})
    target_link_libraries(${name} PRIVATE residua::residua residua::io residua_developer ${arg_LIBRARIES})
    if(arg_CUDA)
        target_link_libraries(${name} PRIVATE residua::cuda)
    endif()
endfunction()

# residua_tune(<name>): the flags of examples and benchmarks, where speed is what is shown.
function(residua_tune name)
    if(RESIDUA_NATIVE)
        target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-march=native>")
        # The headers of g++ 12 leave operands of AVX-512 intrinsics undefined on purpose, and its optimizer then
        # warns of them some thousand times; and it sees overlaps in "text" + std::string that are none. Builds with
        # -Werror are not tuned, and keep these warnings.
        target_compile_options(${name} PRIVATE
            "$<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-maybe-uninitialized;-Wno-uninitialized;-Wno-restrict>")
    endif()
endfunction()

# residua_compile_briefly(<source>...): sources that read options and files or run for an instant, whose
# optimization takes longer than it ever saves.
function(residua_compile_briefly)
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "$<IF:$<CONFIG:Debug>,-O0,-O1>")
endfunction()
