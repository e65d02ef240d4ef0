include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# The headers are the same on every architecture, and so is the package.
set(residua_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/residua)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/residua DESTINATION include)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/residua)

# One export set for each component, so that its dependencies are looked for only where it is asked for.
foreach(component residua io cuda mpi nccl)
    if(TARGET residua_${component})
        install(TARGETS residua_${component} EXPORT residua-${component}-targets)
        install(EXPORT residua-${component}-targets NAMESPACE residua:: DESTINATION ${residua_package_dir})
    endif()
endforeach()

configure_package_config_file(
    ${PROJECT_SOURCE_DIR}/cmake/residua-config.cmake.in ${PROJECT_BINARY_DIR}/residua-config.cmake
    INSTALL_DESTINATION ${residua_package_dir})
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/residua-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(
    FILES ${PROJECT_BINARY_DIR}/residua-config.cmake ${PROJECT_BINARY_DIR}/residua-config-version.cmake
    DESTINATION ${residua_package_dir})
