#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/utf8.hpp>
#include <kvist/reference/detail/unicode_tables.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace kvist::inline KVIST_ABI {

/// What a pre-tokenizer asks of a character: \p{L}, \p{N}, white space (the property White_Space), or none of them.
enum class CharClass : std::uint8_t { other, letter, number, space };

namespace detail {

template <std::size_t N>
constexpr bool in_ranges(const CodeRange (&ranges)[N], char32_t code) {
  const auto* const at = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                          [](char32_t c, const CodeRange& r) { return c < r.first; });
  return at != std::begin(ranges) && code <= std::prev(at)->last;
}

constexpr bool is_white_space(char32_t code) {
  return (code >= 9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
         code == 0x205f || code == 0x3000;
}

}  // namespace detail

/// The class of a code point, by Unicode 14.
constexpr CharClass char_class(char32_t code) {
  if (code < 0x80) {
    const char32_t lower = code | 0x20;
    if (lower >= 'a' && lower <= 'z') return CharClass::letter;
    if (code >= '0' && code <= '9') return CharClass::number;
    return detail::is_white_space(code) ? CharClass::space : CharClass::other;
  }
  if (detail::is_white_space(code)) return CharClass::space;
  if (detail::in_ranges(detail::letter_ranges, code)) return CharClass::letter;
  return detail::in_ranges(detail::number_ranges, code) ? CharClass::number : CharClass::other;
}

/// A character of a text: its class and its bytes. A byte that is not part of valid UTF-8 is one of class `other`.
struct ClassedChar {
  CharClass kind = CharClass::other;
  std::size_t length = 0;
};

/// Requires: at < text.size().
constexpr ClassedChar classify(std::string_view text, std::size_t at) {
  const Utf8 c = read_utf8(text, at);
  return {c.valid ? char_class(c.code) : CharClass::other, c.length};
}

}  // namespace kvist::inline KVIST_ABI
