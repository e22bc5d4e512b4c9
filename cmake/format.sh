#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh cmake/format.sh          lists the C++ files that clang-format would change; exit status 1 if there are any
# sh cmake/format.sh --fix    changes them
cd "$(dirname "$0")/.." || exit 1
formatter=${CLANG_FORMAT:-clang-format}
files=$(find include tests bench examples -name '*.hpp' -o -name '*.cpp' -o -name '*.ipp' | sort)
if [ "${1:-}" = --fix ]; then
  echo "$files" | xargs "$formatter" -i
  exit
fi
status=0
for file in $files; do
  if ! "$formatter" "$file" | cmp -s - "$file"; then
    echo "not formatted: $file (sh cmake/format.sh --fix)"
    status=1
  fi
done
exit $status
