# SPDX-License-Identifier: Apache-2.0
# Finds what parts of the project need beyond a compiler, and says what to install where something is missing.
#   kvist::io         include/kvist/io: fmt 9 or newer
#   kvist::reference  include/kvist/reference: that, Eigen 3.4 and threads
# The two targets exist where their needs are met; kvist::kvist itself needs nothing.

set(KVIST_MISSING_PACKAGES "")
set(KVIST_MISSING_NAMES "")

# kvist_find(<package> <version or ""> <target> <Debian package> [<git repository> <tag>]): finds an installed package,
# or with KVIST_FETCH downloads it, or notes it as missing.
macro(kvist_find package version target debian)
  if(NOT TARGET ${target})
    find_package(${package} ${version} QUIET)
  endif()
  if(NOT TARGET ${target} AND KVIST_FETCH)
    message(STATUS "kvist: ${package} is not installed, downloading ${ARGV4} (${ARGV5})")
    include(FetchContent)
    FetchContent_Declare(${package} GIT_REPOSITORY ${ARGV4} GIT_TAG ${ARGV5} GIT_SHALLOW TRUE)
    FetchContent_MakeAvailable(${package})
  endif()
  if(NOT TARGET ${target})
    list(APPEND KVIST_MISSING_PACKAGES ${debian})
    string(STRIP "${package} ${version}" KVIST_MISSING_NAME)
    list(APPEND KVIST_MISSING_NAMES "${KVIST_MISSING_NAME}")
  endif()
endmacro()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads QUIET)

# A project that only uses the library is not stopped by what is missing here (unless it asks for KVIST_FETCH, offline).
set(KVIST_NEEDS_ALL OFF)
if(KVIST_TESTS OR KVIST_BENCH OR KVIST_EXAMPLES OR KVIST_TOOLS)
  set(KVIST_NEEDS_ALL ON)
endif()
if(KVIST_FETCH)  # the packages' own tests and documents are not wanted
  set(EIGEN_BUILD_DOC OFF)
  set(EIGEN_BUILD_TESTING OFF)
  set(EIGEN_BUILD_PKGCONFIG OFF)
  set(BENCHMARK_ENABLE_TESTING OFF CACHE BOOL "" FORCE)
endif()

if(NOT CMAKE_CROSSCOMPILING)  # the packages of this machine are no use to another one
  kvist_find(fmt 9 fmt::fmt libfmt-dev https://github.com/fmtlib/fmt.git 9.1.0)
  kvist_find(Eigen3 3.4 Eigen3::Eigen libeigen3-dev https://gitlab.com/libeigen/eigen.git 3.4.0)
endif()
if(KVIST_TESTS AND NOT KVIST_NOEXCEPT)
  kvist_find(Catch2 "" Catch2::Catch2 catch2 https://github.com/catchorg/Catch2.git v3.7.1)
endif()
if(KVIST_BENCH)
  kvist_find(benchmark "" benchmark::benchmark libbenchmark-dev https://github.com/google/benchmark.git v1.7.1)
endif()

if(KVIST_MISSING_PACKAGES AND KVIST_NEEDS_ALL)
  list(JOIN KVIST_MISSING_PACKAGES " " packages)
  list(JOIN KVIST_MISSING_NAMES ", " names)
  message(FATAL_ERROR
    "kvist's own programs need ${names}, which CMake did not find. One of:\n"
    "  Debian, Ubuntu:   apt-get install ${packages}\n"
    "  elsewhere:        install them by hand and pass -DCMAKE_PREFIX_PATH=<where they are>\n"
    "  with a network:   -DKVIST_FETCH=ON downloads and builds them here\n"
    "  the library only: -DKVIST_TESTS=OFF -DKVIST_BENCH=OFF -DKVIST_EXAMPLES=OFF -DKVIST_TOOLS=OFF (it needs none "
    "of them)")
endif()

if(TARGET fmt::fmt)
  add_library(kvist_io INTERFACE)
  add_library(kvist::io ALIAS kvist_io)
  set_target_properties(kvist_io PROPERTIES EXPORT_NAME io)
  target_link_libraries(kvist_io INTERFACE kvist fmt::fmt)
endif()
if(TARGET fmt::fmt AND TARGET Eigen3::Eigen AND TARGET Threads::Threads)
  add_library(kvist_reference INTERFACE)
  add_library(kvist::reference ALIAS kvist_reference)
  set_target_properties(kvist_reference PROPERTIES EXPORT_NAME reference)
  target_link_libraries(kvist_reference INTERFACE kvist_io Eigen3::Eigen Threads::Threads)
endif()
