#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes include/kvist/reference/detail/unicode_tables.hpp: the ranges of letters and numbers that
tokenizers ask for. Run it with a Python whose unicodedata has the Unicode version wanted (3.11: Unicode 14):
    python3 cmake/unicode_tables.py > include/kvist/reference/detail/unicode_tables.hpp
"""
import sys
import unicodedata


def ranges(group):
    """Maximal ranges of code points whose general category starts with `group`."""
    out = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] != group:
            continue
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def table(name, what, rows):
    print(f"\n/// {what}: {len(rows)} ranges, {sum(b - a + 1 for a, b in rows)} code points.")
    print(f"inline constexpr CodeRange {name}[] = {{")
    line = "   "
    for first, last in rows:
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 110:
            print(line)
            line = "   "
        line += item
    print(line)
    print("};")


print(f"""#pragma once
// SPDX-License-Identifier: Apache-2.0
// Made by cmake/unicode_tables.py from Python's unicodedata, Unicode {unicodedata.unidata_version}. Do not edit.
// clang-format off
#include <kvist/core/version.hpp>

namespace kvist::inline KVIST_ABI {{ namespace detail {{

/// First and last code point of a range.
struct CodeRange {{
  char32_t first, last;
}};""")
table("letter_ranges", "General category L", ranges("L"))
table("number_ranges", "General category N", ranges("N"))
print("\n}}  // namespace kvist::inline KVIST_ABI::detail\n// clang-format on")
