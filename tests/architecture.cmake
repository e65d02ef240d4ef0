# cmake -D INCLUDE_DIR=<include> -P architecture.cmake
#
# The rooms of include/residua, from the ground up. A header includes its own room and those before it, never one
# behind it. Below that: what else no preprocessor line may hold, and why.

cmake_minimum_required(VERSION 3.25)

set(rooms core grids methods backends solver transform distributed io)
set(violations 0)

# forbid(<reason> <regex> IN <glob>... [OUTSIDE <regex>] [UNLESS <regex>]), paths relative to include/residua
function(forbid reason regex)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "OUTSIDE;UNLESS" "IN")
    list(TRANSFORM arg_IN PREPEND ${INCLUDE_DIR}/residua/)
    file(GLOB_RECURSE files RELATIVE ${INCLUDE_DIR}/residua ${arg_IN})
    if(arg_OUTSIDE)
        list(FILTER files EXCLUDE REGEX "${arg_OUTSIDE}")
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

set(behind ${rooms})
foreach(room IN LISTS rooms)
    list(POP_FRONT behind)
    list(JOIN behind "|" names)
    if(names)
        forbid("${room}/ comes before the room that this includes from" "${include}residua/(${names})/" IN ${room}/*)
    endif()
    forbid("umbrellas are for users" "${include}residua/(residua|cuda|io|distributed)\\.hpp" IN ${room}/*)
endforeach()

forbid("core/ depends on nothing but the standard library" "${include}" IN core/*
    UNLESS "include[ \t]*(<[a-z_]+>|\"residua/core/)")
forbid("only backends/eigen.hpp includes Eigen" "${include}(unsupported/)?Eigen/" IN * OUTSIDE "^backends/eigen\\.hpp$")
forbid("CUDA is for folders named cuda" "${include}(residua/.*/cuda/|cu[a-z_]*\\.h|cublas|cusolver|cub/|thrust/|mma\\.h)"
    IN * OUTSIDE "/cuda/|^(cuda|distributed)\\.hpp$")
forbid("one header for each engine" "${include}((mpi|nccl)\\.h|oneapi/)" IN *
    OUTSIDE "^(distributed/(mpi_communicator|cuda/nccl_communicator)|backends/host/bf16_product)\\.hpp$")
forbid("solvers know a backend by its concept only" "${include}residua/backends/"
    IN solver/* UNLESS "residua/backends/(backend|sweep_block|refine_block)\\.hpp")
forbid("solvers have no feature switches" "#[ \t]*(if|ifdef|ifndef|elif|else)" IN solver/*)

if(violations)
    message(FATAL_ERROR "${violations} violation(s) of the layering")
endif()
message(STATUS "the layering holds")
