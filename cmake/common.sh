# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Shared by demo.sh, test.sh and model.sh; sourced, with `root` set to the source tree. Messages go to standard error.

say() { echo "kvist: $*" >&2; }

die() {
  say "$*"
  exit 1
}

have() { command -v "$1" > /dev/null 2>&1; }

# Does the compiler find this header where Debian or a local install puts it?
have_header() {
  echo "#include <$1>" |
    c++ -std=c++17 -E -x c++ -I/usr/include/eigen3 -I/usr/local/include/eigen3 - > /dev/null 2>&1
}

# Prints the Debian packages that are missing for building everything; nothing where all is there.
missing_packages() {
  have cmake || printf ' cmake'
  have make || have ninja || printf ' make'
  if ! have c++; then  # without a compiler, headers cannot be asked for either
    printf ' g++ libeigen3-dev libfmt-dev catch2 libbenchmark-dev'
    return
  fi
  have_header Eigen/Core || printf ' libeigen3-dev'
  have_header fmt/format.h || printf ' libfmt-dev'
  have_header catch2/catch_all.hpp || have_header catch2/catch.hpp || printf ' catch2'
  have_header benchmark/benchmark.h || printf ' libbenchmark-dev'
}

# install_packages <package>...: through apt-get, as root or with sudo. Fails where that is not possible.
install_packages() {
  if ! have apt-get; then
    say "this machine has no apt-get"
    return 1
  fi
  as_root=
  if [ "$(id -u)" != 0 ]; then
    if ! have sudo; then
      say "installing packages needs root, and there is no sudo"
      return 1
    fi
    as_root=sudo
    # Without a terminal sudo cannot ask for a password.
    if [ ! -t 0 ] && ! sudo -n true 2> /dev/null; then
      say "installing packages needs root, and sudo wants a password"
      return 1
    fi
  fi
  say "installing $*"
  # Messages of the package manager go to standard error, too: standard output belongs to the results.
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
    say "apt-get update failed; trying with the package lists at hand"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# Everything that building needs, or an end with a message that tells how to go on by hand.
install_missing() {
  packages=$(missing_packages)
  if [ -n "$packages" ]; then
    # shellcheck disable=SC2086  # a list of names
    if ! install_packages $packages; then
      say "missing:$packages (names of Debian packages)"
      say "install them as root (apt-get install$packages) or by other means (CMake 3.25, a C++20 compiler,"
      die "Eigen 3.4, fmt 9, Catch2, Google Benchmark; -DCMAKE_PREFIX_PATH tells CMake where), then run this again"
    fi
  fi
  version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  if [ "${version% *}" -lt 3 ] || { [ "${version% *}" -eq 3 ] && [ "${version#* }" -lt 25 ]; }; then
    die "the presets need CMake 3.25 or newer; this is $(cmake --version | head -n 1) (pip install cmake has a newer one)"
  fi
}

# Jobs at once: all cores, or what CMAKE_BUILD_PARALLEL_LEVEL says.
jobs() { echo "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc 2> /dev/null || echo 2)}"; }

# configure <preset> [<cmake argument>...]: Ninja where it is there, else Make; an existing build folder keeps its own.
configure() {
  if [ -z "${CMAKE_GENERATOR:-}" ] && [ ! -e "$root/build/$1/CMakeCache.txt" ] && have ninja; then
    CMAKE_GENERATOR=Ninja
    export CMAKE_GENERATOR
  fi
  say "configuring build/$1"
  log=$(mktemp) || exit 1
  if (cd "$root" && cmake --preset "$@") > "$log" 2>&1; then
    rm -f "$log"
  else
    cat "$log" >&2
    rm -f "$log"
    die "configuring build/$1 failed"
  fi
}
