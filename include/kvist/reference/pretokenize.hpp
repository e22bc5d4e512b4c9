#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>
#include <kvist/reference/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace kvist::inline KVIST_ABI {

namespace detail {

/// Length of 's 't 're 've 'm 'll 'd at the start of `text`, or 0.
constexpr std::size_t contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const char a = text[1], b = text.size() > 2 ? text[2] : '\0';
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

}  // namespace detail

/// Cuts a text into the pieces that byte-pair merges never cross, as the pre-tokenizer "smollm" does: first every
/// number character is a piece of its own; then each stretch between them is cut by the pattern of GPT-2,
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// (its alternative for numbers never applies), where a stretch ends as the text does: blanks before a number stay
/// together. Calls emit(std::string_view) for each piece in order; together they are the whole text.
/// Source: llama.cpp, src/llama-vocab.cpp (LLAMA_VOCAB_PRE_TYPE_SMOLLM).
/// Cost: linear; a table look-up a character outside ASCII.
template <class Emit>
constexpr void pretokenize(std::string_view text, Emit&& emit) {
  const auto at_end = [&](std::size_t at) {
    return at == text.size() || classify(text, at).kind == CharClass::number;
  };
  const auto run = [&](std::size_t at, CharClass kind) {
    while (at < text.size()) {
      const ClassedChar c = classify(text, at);
      if (c.kind != kind) break;
      at += c.length;
    }
    return at;
  };
  for (std::size_t at = 0; at < text.size();) {
    const ClassedChar first = classify(text, at);
    std::size_t end = at + first.length;
    if (first.kind == CharClass::space) {
      std::size_t last = at,
                  next = end;  // of the run of white space: where its last character starts, and its end
      while (next < text.size()) {
        const ClassedChar c = classify(text, next);
        if (c.kind != CharClass::space) break;
        last = next;
        next += c.length;
      }
      if (at_end(next)) end = next;
      else if (last > at) end = last;  // the last one goes with what follows, or is a piece of its own
      else if (text[at] == ' ') end = run(end, classify(text, end).kind);
    } else if (first.kind != CharClass::number) {
      const std::size_t short_form = detail::contraction(text.substr(at));
      end = short_form > 0 ? at + short_form : run(end, first.kind);
    }
    emit(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace kvist::inline KVIST_ABI
