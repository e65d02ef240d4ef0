# residua_sanitizers: RESIDUA_SANITIZE for this project's own programs; any finding ends the program.
add_library(residua_sanitizers INTERFACE)

if(RESIDUA_SANITIZE)
    list(JOIN RESIDUA_SANITIZE "," sanitizers)
    set(flags -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(residua_sanitizers INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
    target_link_options(residua_sanitizers INTERFACE "$<$<LINK_LANGUAGE:CXX>:${flags}>")
endif()
