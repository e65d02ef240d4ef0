# residua_sanitizers: RESIDUA_SANITIZE for this project's own programs; any finding ends the program.
# residua_brief: for those of them that run for an instant, where optimizing what sanitizers add takes four times as long as
# all the rest.
add_library(residua_sanitizers INTERFACE)
add_library(residua_brief INTERFACE)

if(RESIDUA_SANITIZE)
    list(JOIN RESIDUA_SANITIZE "," sanitizers)
    set(flags -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(residua_sanitizers INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
    target_link_options(residua_sanitizers INTERFACE "$<$<LINK_LANGUAGE:CXX>:${flags}>")
    target_compile_options(residua_brief INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-O0>")
endif()
