# residua_warnings: linked to this project's own programs only.
add_library(residua_warnings INTERFACE)

set(warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# clang counts sign conversions among -Wconversion, g++ does not: both are held to the same set.
set(clang_only -Wno-sign-conversion)

target_compile_options(residua_warnings INTERFACE
    "$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:${warnings}>"
    "$<$<COMPILE_LANG_AND_ID:CXX,Clang,AppleClang>:${clang_only}>"
    "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=-Wall,-Wextra>")
if(RESIDUA_WERROR)
    # nvcc warns of Eigen's own code.
    target_compile_options(residua_warnings INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>")
endif()
