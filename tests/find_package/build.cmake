# Configures, builds and runs the consumer from nothing; for find_package, against a freshly installed tree.
cmake_minimum_required(VERSION 3.25)

function(run)
    execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${WORK})
set(options)
if(HOW STREQUAL "find_package")
    run(${CMAKE_COMMAND} --install ${RESIDUA_BUILD} --prefix ${WORK}/prefix)
    list(PREPEND PREFIX_PATH ${WORK}/prefix)
else()
    list(APPEND options -D RESIDUA_SOURCE=${RESIDUA_SOURCE})
endif()

list(JOIN PREFIX_PATH "\\;" PREFIX_PATH)
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/build -G ${GENERATOR}
    -D CMAKE_CXX_COMPILER=${COMPILER} -D "CMAKE_PREFIX_PATH=${PREFIX_PATH}" -D RESIDUA_HOW=${HOW} ${options})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
