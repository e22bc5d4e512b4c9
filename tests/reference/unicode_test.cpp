// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/unicode.hpp>

#include <support/catch.hpp>

using kvist::char_class;
using kvist::CharClass;

TEST_CASE("Characters have the class that Unicode gives them", "[reference][unicode]") {
  for (const char32_t c :
       {U'a', U'Z', U'\u00aa', U'\u00e9', U'\u03b1', U'\u4e2d', U'\uac00', U'\u02c6', U'\U0001d44e'})
    CHECK(char_class(c) == CharClass::letter);
  for (const char32_t c :
       {U'0', U'9', U'\u00b2', U'\u00bd', U'\u0663', U'\u2163', U'\u2460', U'\u3007', U'\U0001d7d8'})
    CHECK(char_class(c) == CharClass::number);
  for (const char32_t c : {U'\t', U'\n', U'\v', U'\f', U'\r', U' ', U'\u0085', U'\u00a0', U'\u1680',
                           U'\u2000', U'\u200a', U'\u2028', U'\u2029', U'\u202f', U'\u205f', U'\u3000'})
    CHECK(char_class(c) == CharClass::space);
  for (const char32_t c : {U'\0', U'!', U'_', U'@', U'[', U'`', U'{', U'\x1c', U'\x1f', U'\x7f', U'\u00d7',
                           U'\u0301', U'\u200b', U'\ufeff', U'\U0001f600', U'\U000e0001', U'\U0010ffff'})
    CHECK(char_class(c) == CharClass::other);
}

TEST_CASE("The tables hold as many characters as Unicode 14 counts", "[reference][unicode]") {
  std::size_t letters = 0, numbers = 0, spaces = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    letters += char_class(c) == CharClass::letter;
    numbers += char_class(c) == CharClass::number;
    spaces += char_class(c) == CharClass::space;
  }
  CHECK(letters == 131756);
  CHECK(numbers == 1791);
  CHECK(spaces == 25);
}
