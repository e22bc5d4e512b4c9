#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh cmake/demo.sh [preset]: installs what is missing (Debian packages, as root or with sudo), builds kvist-eval in
# build/<preset> (default: release), gets the real model, and compares policies on it: a table on standard output, and
# an HTML report. Without a network it runs on the small model of this repository.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$root/cmake/common.sh"

preset=${1:-release}
build=$root/build/$preset

install_missing
if model=$(sh "$root/cmake/model.sh"); then
  say "the real model: $model"
else
  model=tiny
  say "going on with the small model of this repository, bench/models"
fi

configure "$preset"
say "building kvist-eval (the first time takes some minutes)"
cmake --build "$build" --parallel "$(jobs)" --target kvist-eval >&2 || die "the build failed"

report=$build/kvist-report.html
say "comparing policies (the real model takes about a minute)"
"$build/bin/kvist-eval" run --model "$model" --html "$report" || die "kvist-eval failed"
say "the report: $report"
say "more: $build/bin/kvist-eval --help"
