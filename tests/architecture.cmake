# cmake -D INCLUDE_DIR=<include> -P architecture.cmake
#
# Layers: core, backend, cuda, moments, solver, transform, io. Includes never point down this list, but for the
# device's half of a transform in cuda, and moments and solvers know backends only by the concept. Each rule
# below names files, what none of their preprocessor lines may match, and why.

cmake_minimum_required(VERSION 3.25)

set(violations 0)

# forbid(<reason> <regex> IN <glob>... [OUTSIDE <folder>] [UNLESS <regex>]), paths relative to include/residua
function(forbid reason regex)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "OUTSIDE;UNLESS" "IN")
    list(TRANSFORM arg_IN PREPEND ${INCLUDE_DIR}/residua/)
    file(GLOB_RECURSE files RELATIVE ${INCLUDE_DIR}/residua ${arg_IN})
    if(arg_OUTSIDE)
        list(FILTER files EXCLUDE REGEX "^${arg_OUTSIDE}/")
    endif()
    foreach(file IN LISTS files)
        file(STRINGS ${INCLUDE_DIR}/residua/${file} lines REGEX "^[ \t]*#[ \t]*(include|if|ifdef|ifndef|elif|else)")
        foreach(line IN LISTS lines)
            if(line MATCHES "${regex}" AND NOT (arg_UNLESS AND line MATCHES "${arg_UNLESS}"))
                message("residua/${file}: ${line}\n    ${reason}")
                math(EXPR violations "${violations} + 1")
            endif()
        endforeach()
    endforeach()
    set(violations ${violations} PARENT_SCOPE)
endfunction()

set(include "#[ \t]*include[ \t]*[<\"]")

forbid("core depends on nothing but the standard library" "${include}" IN core/*
    UNLESS "include[ \t]*(<[a-z_]+>|\"residua/core/)")
forbid("only backend/ includes Eigen" "${include}(unsupported/)?Eigen/" IN * OUTSIDE backend)
forbid("only cuda/ includes CUDA" "${include}(residua/cuda/|cu[a-z_]*\\.h|cublas|cusolver|cub/|thrust/|mma\\.h)"
    IN * OUTSIDE cuda)
forbid("solvers are below backends and moments" "${include}residua/solver/" IN backend/* cuda/* moments*.hpp moments/* factorization*.hpp)
forbid("moments and solvers know a backend by its concept only" "${include}residua/backend/"
    IN solver/* moments*.hpp moments/* factorization*.hpp UNLESS "residua/backend/(backend|sweep_block|refine_block)\\.hpp")
forbid("transforms are above backends, moments and solvers" "${include}residua/transform/"
    IN core/* backend/* solver/* moments*.hpp moments/* factorization*.hpp)
forbid("cuda has the device's half of the Hadamard transform and knows no other" "${include}residua/transform/"
    IN cuda/* UNLESS "residua/transform/hadamard(_base)?\\.hpp")
forbid("transforms are below file formats" "${include}residua/io/" IN transform/*)
forbid("solvers have no feature switches" "#[ \t]*(if|ifdef|ifndef|elif|else)" IN solver/*)

if(violations)
    message(FATAL_ERROR "${violations} violation(s) of the layering")
endif()
message(STATUS "the layering holds")
