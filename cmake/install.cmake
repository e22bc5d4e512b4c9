# SPDX-License-Identifier: Apache-2.0
# Install rules. find_package(kvist) gives kvist::kvist and looks for nothing else; find_package(kvist COMPONENTS io
# reference) gives those targets, too, and finds fmt, Eigen and threads for them.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(KVIST_PACKAGE_DIR ${CMAKE_INSTALL_DATADIR}/cmake/kvist)  # no compiled file: one place for every architecture

install(DIRECTORY include/kvist DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.ipp")
if(NOT KVIST_FETCH)
  set(KVIST_INSTALLED_PARTS kvist kvist_io kvist_reference)
else()
  set(KVIST_INSTALLED_PARTS kvist)  # the others would name packages that live in this build tree only
endif()
foreach(part ${KVIST_INSTALLED_PARTS})
  if(TARGET ${part})
    install(TARGETS ${part} EXPORT ${part}Targets)
    install(EXPORT ${part}Targets NAMESPACE kvist:: DESTINATION ${KVIST_PACKAGE_DIR} COMPONENT library)
  endif()
endforeach()

configure_package_config_file(cmake/kvistConfig.cmake.in ${PROJECT_BINARY_DIR}/kvistConfig.cmake
                              INSTALL_DESTINATION ${KVIST_PACKAGE_DIR}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvistConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/kvistConfig.cmake ${PROJECT_BINARY_DIR}/kvistConfigVersion.cmake
        DESTINATION ${KVIST_PACKAGE_DIR} COMPONENT library)
# What a program of several files compiles once (README.md).
install(FILES cmake/kernels.cpp cmake/registry.cpp DESTINATION ${CMAKE_INSTALL_DATADIR}/kvist COMPONENT library)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/kvist COMPONENT library)
if(TARGET kvist-eval)
  install(TARGETS kvist-eval RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
  # The bundled model and text: the tool looks for them beside itself, ../share/kvist.
  install(FILES bench/models/kvist-tiny.gguf DESTINATION share/kvist/models COMPONENT tools)
  install(FILES bench/texts/story.txt DESTINATION share/kvist/texts COMPONENT tools)
endif()
