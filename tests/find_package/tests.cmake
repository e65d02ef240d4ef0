foreach(how find_package add_subdirectory fetch_content)
    add_test(NAME consumer.${how}
        COMMAND ${CMAKE_COMMAND}
            -D HOW=${how}
            -D RESIDUA_SOURCE=${PROJECT_SOURCE_DIR}
            -D RESIDUA_BUILD=${PROJECT_BINARY_DIR}
            -D WORK=${PROJECT_BINARY_DIR}/consumer/${how}
            -D GENERATOR=${CMAKE_GENERATOR}
            -D COMPILER=${CMAKE_CXX_COMPILER}
            -D "PREFIX_PATH=${CMAKE_PREFIX_PATH}"
            -P ${CMAKE_CURRENT_LIST_DIR}/build.cmake)
    set_tests_properties(consumer.${how} PROPERTIES LABELS consumer)
endforeach()
