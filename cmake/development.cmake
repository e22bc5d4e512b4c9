# SPDX-License-Identifier: Apache-2.0
# How this project's own programs (tests, tools, benchmarks, examples) are built. Nothing here reaches a user of the
# library: what it sets is in a target that is not exported, or applies at top level only.
include(CheckCXXCompilerFlag)

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
  if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(KVIST_CCACHE ccache)
    mark_as_advanced(KVIST_CCACHE)
    if(KVIST_CCACHE)
      set(CMAKE_CXX_COMPILER_LAUNCHER ${KVIST_CCACHE})
    endif()
  endif()
endif()

# kvist_development: warnings, sanitizers, and where the source tree is (bundled model, texts, tests' own data).
add_library(kvist_development INTERFACE)
target_compile_options(kvist_development INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                                   -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Before version 13, optimised moves of a std::variant are reported as reads of what it does not hold (GCC bug 80635
  # and its kin), and "literal" + std::string as a copy over itself (bug 105329); the sanitizer builds look for the real
  # thing.
  target_compile_options(kvist_development INTERFACE
    "$<$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>:-Wno-maybe-uninitialized;-Wno-restrict>")
endif()
target_compile_definitions(kvist_development INTERFACE KVIST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
if(KVIST_WERROR)
  target_compile_options(kvist_development INTERFACE -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # These come from the optimiser and change with its level and inlining; version 12 is wrong about many of them.
    target_compile_options(kvist_development INTERFACE -Wno-error=array-bounds -Wno-error=dangling-pointer
      -Wno-error=free-nonheap-object -Wno-error=restrict -Wno-error=stringop-overflow -Wno-error=stringop-overread)
  endif()
endif()
if(KVIST_SANITIZE)
  target_compile_options(kvist_development INTERFACE -fsanitize=${KVIST_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(kvist_development INTERFACE -fsanitize=${KVIST_SANITIZE})
  if(KVIST_SANITIZE MATCHES "undefined")
    target_compile_options(kvist_development INTERFACE -fno-sanitize-recover=all)
  endif()
endif()
if(KVIST_SYNTAX_ONLY)  # no file is compiled or linked: what is there to be linked is touched
  target_compile_options(kvist_development INTERFACE -fsyntax-only)
  set(CMAKE_CXX_LINK_EXECUTABLE "<CMAKE_COMMAND> -E touch <TARGET>")
  set(CMAKE_CXX_CREATE_STATIC_LIBRARY "<CMAKE_COMMAND> -E touch <TARGET>")
endif()
if(KVIST_NOEXCEPT)
  target_compile_options(kvist_development INTERFACE -fno-exceptions -fno-rtti)
endif()

# kvist_native: Eigen chooses its kernels at compile time, so the programs that multiply with it are built for this
# machine. The library's own kernels choose at run time and need no flag.
add_library(kvist_native INTERFACE)
if(KVIST_NATIVE AND NOT CMAKE_CROSSCOMPILING)
  check_cxx_compiler_flag(-march=native KVIST_HAS_MARCH_NATIVE)
  if(KVIST_HAS_MARCH_NATIVE)
    target_compile_options(kvist_native INTERFACE -march=native)
  endif()
endif()

# What takes a compiler long, compiled once for the programs of several files that use it, with and without
# -march=native: the kernels of every instruction set (kernels/dispatch.hpp) and the list of all methods
# (methods/registry.hpp).
foreach(flavour "" _native)
  add_library(kvist_kernels${flavour} STATIC EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/cmake/kernels.cpp)
  target_compile_definitions(kvist_kernels${flavour} PUBLIC KVIST_KERNELS_EXTERN)
  target_link_libraries(kvist_kernels${flavour} PUBLIC kvist_development kvist::kvist)
  add_library(kvist_registry${flavour} STATIC EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/cmake/registry.cpp)
  target_compile_definitions(kvist_registry${flavour} PUBLIC KVIST_REGISTRY_EXTERN)
  target_link_libraries(kvist_registry${flavour} PUBLIC kvist_kernels${flavour})
endforeach()
target_link_libraries(kvist_kernels_native PUBLIC kvist_native)
target_compile_options(kvist_registry PRIVATE $<$<CONFIG:Release>:-O1>)  # for tests only, as they are built

# Target `format`: every C++ file of the project through clang-format.
if(PROJECT_IS_TOP_LEVEL)
  find_program(KVIST_CLANG_FORMAT NAMES clang-format clang-format-14)
  mark_as_advanced(KVIST_CLANG_FORMAT)
  if(KVIST_CLANG_FORMAT)
    add_custom_target(format COMMAND sh ${PROJECT_SOURCE_DIR}/cmake/format.sh --fix
                      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
  endif()
endif()
