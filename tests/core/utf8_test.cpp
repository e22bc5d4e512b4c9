// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/utf8.hpp>

#include <support/catch.hpp>

#include <string>

TEST_CASE("UTF-8 is read strictly and written back the same", "[core][utf8]") {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    kvist::append_utf8(text, c);
    const kvist::Utf8 back = kvist::read_utf8(text, 0);
    REQUIRE(back.valid);
    REQUIRE(back.code == c);
    REQUIRE(back.length == text.size());
    REQUIRE((text.size() == 1 || !kvist::read_utf8(std::string_view(text).substr(0, text.size() - 1), 0).valid));
  }
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xc3(", "\xe2\x82"}) {
    const kvist::Utf8 c = kvist::read_utf8(text, 0);
    CHECK_FALSE(c.valid);
    CHECK(c.length == 1);
  }
}
