#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh cmake/run_tests.sh <build folder> [<ctest argument>...]: runs its tests; the last line is
# `N passed, N failed, N skipped`. A Catch2 program counts by its cases (it leaves "passed failed skipped" in
# counts/<test>; see tests/support/catch_main.cpp), every other test as one. Exit status 1 if anything failed.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$root/cmake/common.sh"
build=$(cd "$1" && pwd) || exit 1
shift

results=$build/test-results.xml
log=$build/test-output.txt
rm -rf "$results" "$build/counts"
mkdir -p "$build/counts"
# -V to a file: the names of skipped cases are in the output of tests that passed.
ctest --test-dir "$build" --parallel "$(jobs)" --output-on-failure --output-junit "$results" \
      --output-log "$log" --no-tests=error "$@"
status=$?
[ -f "$results" ] || die "ctest left no results"
grep -h -o 'SKIPPED: .*' "$results" | sed 's/&quot;/"/g; s/&apos;/'"'"'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g' |
  sort -u

awk -v counts="$build/counts" -v status="$status" '
  /<testcase / {
    name = $0; sub(/.*<testcase name="/, "", name); sub(/".*/, "", name)
    state = $0; sub(/.* status="/, "", state); sub(/".*/, "", state)
    file = counts "/" name
    if ((getline line < file) > 0) {
      split(line, n, " ")
      passed += n[1]; failed += n[2]; skipped += n[3]
      if (state != "run" && n[2] == 0) ++failed   # every case passed, but the program did not end well
    } else if (state == "run") {
      ++passed
    } else if (state == "disabled") {
      ++skipped
    } else {
      ++failed
    }
    close(file)
  }
  END {
    if (status != 0 && failed == 0) ++failed
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit failed > 0 || passed == 0
  }' "$results"
