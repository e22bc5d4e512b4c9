#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace tasks {

/// Text to token ids, without a start token; how a task sees a tokenizer.
using Encode = std::function<std::vector<std::int32_t>(std::string_view text)>;

namespace detail {

constexpr bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

/// Characters of UTF-8 text: bytes that do not continue one.
inline std::size_t characters(std::string_view s) {
  std::size_t n = 0;
  for (const char c : s) n += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  return n;
}

}  // namespace detail

/// The paragraphs of a text: cut at blank lines, each joined by single blanks; those of `shortest` characters
/// or fewer (headings, page numbers) are left out.
inline std::vector<std::string> paragraphs(std::string_view text, std::size_t shortest = 40) {
  std::vector<std::string> out;
  std::string now;
  const auto finish = [&] {
    if (detail::characters(now) > shortest) out.push_back(now);
    now.clear();
  };
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    const std::size_t before = now.size();
    bool in_word = false;
    for (const char c : line) {
      if (detail::is_blank(c)) {
        in_word = false;
        continue;
      }
      if (!in_word && !now.empty()) now += ' ';
      in_word = true;
      now += c;
    }
    if (now.size() == before) finish();
  }
  finish();
  return out;
}

/// A paragraph cut after each of . ! ? " that stands before a blank and a capital or ".
inline std::vector<std::string> sentences(std::string_view paragraph) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  for (std::size_t i = 1; i + 1 < paragraph.size(); ++i) {
    const char last = paragraph[i - 1], next = paragraph[i + 1];
    const bool closes = last == '.' || last == '!' || last == '?' || last == '"';
    if (!closes || paragraph[i] != ' ' || !((next >= 'A' && next <= 'Z') || next == '"')) continue;
    out.emplace_back(paragraph.substr(begin, i - begin));
    begin = i + 1;
  }
  if (begin < paragraph.size()) out.emplace_back(paragraph.substr(begin));
  return out;
}

/// A text as the sentences that contexts are made of, with the tokens that each takes.
struct Haystack {
  std::vector<std::string> sentences;
  std::vector<Index> tokens;  ///< [sentences] with the blank before it

  static Haystack of(std::string_view text, const Encode& encode) {
    Haystack h;
    for (const std::string& p : paragraphs(text))
      for (std::string& s : kvist::tasks::sentences(p)) {
        h.tokens.push_back(Index(encode(" " + s).size()));
        h.sentences.push_back(std::move(s));
      }
    return h;
  }
};

/// Text that says nothing, for passkey tasks without a book: five sentences over and over, at least
/// `characters` of it.
inline std::string filler(std::size_t characters) {
  constexpr std::string_view once =
      "The grass is green and the sky is blue. The sun goes up and the sun goes down. We walk along the road "
      "to the old "
      "town. The birds sing in the trees near the water. Here we go, there and back again.";
  std::string out;
  while (out.size() < characters) {
    if (!out.empty()) out += ' ';
    out += once;
  }
  return out;
}

}  // namespace tasks
}  // namespace kvist::inline KVIST_ABI
