#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh cmake/test.sh [preset] [<cmake argument>...]: installs what is missing (Debian packages, as root or with sudo),
# builds in build/<preset> (default: release), runs all tests and ends with the line `N passed, N failed, N skipped`
# that counts test cases. Cases that need the real model are skipped, by name, where it cannot be had.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$root/cmake/common.sh"

preset=${1:-release}
[ $# -eq 0 ] || shift
build=$root/build/$preset

install_missing
if model=$(sh "$root/cmake/model.sh"); then
  say "the real model: $model"
else
  say "going on without the real model"
fi

configure "$preset" "$@"
say "building build/$preset"
cmake --build "$build" --parallel "$(jobs)" >&2 || die "the build failed"

say "running the tests"
sh "$root/cmake/run_tests.sh" "$build"
