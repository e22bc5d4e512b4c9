#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace kvist::inline KVIST_ABI {

/// One step of reading UTF-8: a code point and the bytes it took, or one byte that is not part of valid UTF-8.
struct Utf8 {
  char32_t code = 0;       ///< the code point; the byte itself where not valid
  std::size_t length = 0;  ///< bytes taken: 1 to 4; 1 where not valid
  bool valid = false;
};

/// Reads the code point at text[at]. Overlong forms, surrogates and values above U+10FFFF are not valid.
/// Requires: at < text.size().
constexpr Utf8 read_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {char32_t(lead), 1, true};
  const Utf8 bad{char32_t(lead), 1, false};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() - at < length) return bad;
  char32_t code = lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const unsigned next = byte(i);
    if ((next & 0xc0u) != 0x80u) return bad;
    code = (code << 6) | (next & 0x3fu);
  }
  const char32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return bad;
  return {code, length, true};
}

/// Appends a code point. Requires: code is at most U+10FFFF and no surrogate.
inline void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t bits) { out.push_back(static_cast<char>(static_cast<unsigned char>(bits))); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | (code >> 6));
  } else {
    if (code < 0x10000) {
      put(0xe0 | (code >> 12));
    } else {
      put(0xf0 | (code >> 18));
      put(0x80 | ((code >> 12) & 0x3f));
    }
    put(0x80 | ((code >> 6) & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

}  // namespace kvist::inline KVIST_ABI
