// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/reference/pretokenize.hpp>

#include <support/catch.hpp>

#include <string>
#include <string_view>
#include <vector>

using kvist::CharClass;

namespace {

using Pieces = std::vector<std::string>;

Pieces pieces(std::string_view text) {
  Pieces out;
  kvist::pretokenize(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

/// The definition taken literally: cut out every number, then try the pattern's alternatives one after another at
/// each place of each stretch, on an array of characters.
Pieces naive(std::string_view text) {
  struct Char {
    std::string bytes;
    CharClass kind;
  };
  Pieces out;
  std::vector<Char> stretch;
  const auto flush = [&] {
    const std::size_t n = stretch.size();
    const auto is = [&](std::size_t i, const char* c) { return i < n && stretch[i].bytes == c; };
    const auto take = [&](std::size_t from, CharClass kind) {  // the end of a run, possibly empty
      while (from < n && stretch[from].kind == kind) ++from;
      return from;
    };
    for (std::size_t i = 0; i < n;) {
      std::size_t end = i;
      if (is(i, "'") && (is(i + 1, "s") || is(i + 1, "t"))) end = i + 2;
      else if (is(i, "'") && is(i + 1, "r") && is(i + 2, "e")) end = i + 3;
      else if (is(i, "'") && is(i + 1, "v") && is(i + 2, "e")) end = i + 3;
      else if (is(i, "'") && is(i + 1, "m")) end = i + 2;
      else if (is(i, "'") && is(i + 1, "l") && is(i + 2, "l")) end = i + 3;
      else if (is(i, "'") && is(i + 1, "d")) end = i + 2;
      for (const CharClass kind : {CharClass::letter, CharClass::other}) {
        const std::size_t from = is(i, " ") ? i + 1 : i;
        if (end == i && take(from, kind) > from) end = take(from, kind);
      }
      if (end == i) {
        end = take(i, CharClass::space);
        if (end < n && end > i + 1) --end;  // \s+(?!\S) gives one back; a single blank is taken by \s+
      }
      std::string piece;
      for (; i < end; ++i) piece += stretch[i].bytes;
      out.push_back(piece);
    }
    stretch.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    const kvist::ClassedChar c = kvist::classify(text, at);
    const Char one{std::string(text.substr(at, c.length)), c.kind};
    if (c.kind == CharClass::number) {
      flush();
      out.push_back(one.bytes);
    } else {
      stretch.push_back(one);
    }
    at += c.length;
  }
  flush();
  return out;
}

}  // namespace

TEST_CASE("pretokenize cuts words, contractions, blanks and single digits", "[reference][pretokenize]") {
  CHECK(pieces("") == Pieces{});
  CHECK(pieces("Hello, world!") == Pieces{"Hello", ",", " world", "!"});
  CHECK(pieces(" 42") == Pieces{" ", "4", "2"});
  CHECK(pieces("   42") == Pieces{"   ", "4", "2"});
  CHECK(pieces("a  b") == Pieces{"a", " ", " b"});
  CHECK(pieces("a \n b  ") == Pieces{"a", " \n", " b", "  "});
  CHECK(pieces("a\n\nb") == Pieces{"a", "\n", "\n", "b"});
  CHECK(pieces("I'm we're they'll I'd it's I've don't") ==
        Pieces{"I", "'m", " we", "'re", " they", "'ll", " I", "'d", " it", "'s", " I", "'ve", " don", "'t"});
  CHECK(pieces("I'M 'quoted' ''s") == Pieces{"I", "'", "M", " '", "quoted", "'", " ''", "s"});
  CHECK(pieces("x\u00a0\u00a0y") == Pieces{"x", "\u00a0", "\u00a0", "y"});
  CHECK(pieces("\u00e9t\u00e9 \u4e2d\u6587\u00b2") == Pieces{"\u00e9t\u00e9", " \u4e2d\u6587", "\u00b2"});
  CHECK(pieces("we'") == Pieces{"we", "'"});
  CHECK(pieces("a\xff\xfe b") == Pieces{"a", "\xff\xfe", " b"});
}

TEST_CASE("pretokenize equals its definition on random texts, and its pieces are the text",
          "[reference][pretokenize]") {
  const std::vector<std::string> alphabet{
      " ",      " ",      " ",      "\n",     "\t",     "a",      "s",          "t",    "re",   "ll",
      "v",      "e",      "m",      "d",      "'",      "'",      "!",          ".",    "7",    "4",
      "\u00a0", "\u3000", "\u00e9", "\u4e2d", "\u00bd", "\u0301", "\U0001f600", "\xff", "\xc3", "\xe2\x82"};
  kvist::Random random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (std::uint64_t n = random.below(14); n > 0; --n) text += alphabet[random.below(alphabet.size())];
    INFO(text);
    const Pieces got = pieces(text);
    REQUIRE(got == naive(text));
    std::string joined;
    for (const std::string& piece : got) {
      REQUIRE_FALSE(piece.empty());
      joined += piece;
    }
    REQUIRE(joined == text);
  }
}
