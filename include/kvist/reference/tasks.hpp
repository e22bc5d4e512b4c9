#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/core/result.hpp>
#include <kvist/reference/detail/word_lists.hpp>
#include <kvist/reference/haystack.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace tasks {

/// The token that every prompt starts with: `<|endoftext|>`.
inline constexpr std::int32_t start_token = 0;

// ------------------------------------------------------------------------------------------ fidelity

/// A prompt and what follows it in the text.
struct TextWindow {
  std::vector<std::int32_t> prompt;  ///< start_token and context - 1 tokens of the text
  /// the tokens that are fed; what is predicted after each of them is scored
  std::vector<std::int32_t> next;
  std::int32_t after = -1;  ///< the token that follows those, where the text has one
};

/// How many of at most `windows` windows fit in a text of `length` tokens.
constexpr Index windows_that_fit(Index length, Index context, Index windows, Index scored = 64) {
  for (Index w = windows; w > 0; --w)
    if ((long long)(w - 1) * (length / w) + 500 + context - 1 + scored <= length) return w;
  return 0;
}

/// Window i of `windows` begins at token i * floor(L / windows) + 500 of the text (L tokens): all policies
/// see the same places, and no window depends on another.
/// Fails with: bad_shape where the text is too short; `got` says how many windows fit. bad_option where a
/// size is not positive.
inline Result<std::vector<TextWindow>> text_windows(std::span<const std::int32_t> text, Index context,
                                                    Index windows, Index scored = 64) {
  if (context < 2 || windows < 1 || scored < 1)
    return Error{Errc::bad_option,
                 "a window has a context of at least 2 tokens, and there is at least one window"};
  const Index length = Index(text.size());
  if (const Index fit = windows_that_fit(length, context, windows, scored); fit < windows)
    return Error{Errc::bad_shape, "the text is too short for so many windows of this context", windows, fit};
  std::vector<TextWindow> out(static_cast<std::size_t>(windows));
  for (Index i = 0; i < windows; ++i) {
    TextWindow& w = out[std::size_t(i)];
    const auto begin = text.begin() + std::ptrdiff_t(i) * (length / windows) + 500;
    w.prompt.reserve(std::size_t(context));
    w.prompt.push_back(start_token);
    w.prompt.insert(w.prompt.end(), begin, begin + (context - 1));
    w.next.assign(begin + (context - 1), begin + (context - 1 + scored));
    if (begin + (context - 1 + scored) != text.end()) w.after = begin[context - 1 + scored];
  }
  return out;
}

// ------------------------------------------------------------------------------------------ retrieval

/// What is hidden in a frame.
enum class Payload : std::uint8_t {
  distinct_digits5,
  digits5,
  digits4,
  word,
  invented_name,
  city,
  given_name
};

/// A sentence with a hole, and the question for what stands in it.
struct Frame {
  const char* name;
  const char* line;  ///< up to the payload
  const char* question;
  Payload payload;
};

/// Eight facts whose sentences differ; a small model tells them apart by their sentence, not by a name in it.
inline constexpr Frame facts8[8] = {
    {"passkey", "The pass key is", "What is the pass key?", Payload::distinct_digits5},
    {"number", "The special number is", "What is the special number?", Payload::digits5},
    {"room", "The number of the hotel room is", "What is the number of the hotel room?", Payload::digits4},
    {"secret", "The secret word is", "What is the secret word?", Payload::word},
    {"boat", "The name of the boat is", "What is the name of the boat?", Payload::invented_name},
    {"sailor", "The old sailor was born in", "Where was the old sailor born?", Payload::city},
    {"teacher", "The best friend of the teacher is called", "What is the best friend of the teacher called?",
     Payload::given_name},
    {"cellar", "The key of the cellar is hidden under the", "Where is the key of the cellar hidden?",
     Payload::word}};

/// One question about a context. Its answer is right if each payload token is the argmax after the true ones.
struct Question {
  std::string frame, value;
  double depth = 0;               ///< of the line in the context, 0..1
  std::vector<std::int32_t> ask;  ///< "\n\nQuestion: ...\nAnswer:"
  /// the answer opened, and before digits the blank where it is a token of its own
  std::vector<std::int32_t> open;
  std::vector<std::int32_t> payload;
};

/// A context with facts hidden in it.
struct Retrieval {
  std::string text;
  std::vector<std::int32_t> context;  ///< start_token and the text
  std::vector<Question> questions;
};

namespace detail {

template <std::size_t N>
std::string pick(const std::array<std::string_view, N>& list, Random& random) {
  return std::string(list[random.below(N)]);
}

inline std::string draw(Payload payload, Random& random) {
  switch (payload) {
    case Payload::distinct_digits5: {
      std::string digits = "0123456789";
      for (std::size_t i = 9; i > 0; --i) std::swap(digits[i], digits[random.below(i + 1)]);
      if (digits[0] == '0') std::swap(digits[0], digits[5]);
      return digits.substr(0, 5);
    }
    case Payload::digits5:
      return std::to_string(10000 + random.below(90000));
    case Payload::digits4:
      return std::to_string(1000 + random.below(9000));
    case Payload::word:
      return pick(words, random);
    case Payload::city:
      return pick(cities, random);
    case Payload::given_name:
      return pick(given_names, random);
    case Payload::invented_name: {
      constexpr std::string_view consonants = "bdfgklmnprstvz", vowels = "aeiou";
      std::string s;
      for (int i = 0; i < 5; ++i) {
        const std::string_view from = i % 2 == 0 ? consonants : vowels;
        s += from[random.below(from.size())];
      }
      s[0] = char(s[0] - 'a' + 'A');
      return s;
    }
  }
  return {};
}

struct Line {
  std::string text;
  double depth = 0;
};

/// Sentences first .. first + count - 1 joined by blanks, each line on a line of its own at the border
/// nearest to its depth (in tokens; of two equally near borders the earlier).
inline std::string lay_out(const Haystack& hay, std::size_t first, std::size_t count,
                           std::span<const Line> lines) {
  std::vector<Index> border(count + 1, 0);
  for (std::size_t j = 0; j < count; ++j) border[j + 1] = border[j] + hay.tokens[first + j];
  std::vector<std::size_t> place(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const double at = lines[i].depth * double(border[count]);
    for (std::size_t j = 1; j <= count; ++j)
      if (std::abs(double(border[j]) - at) < std::abs(double(border[place[i]]) - at)) place[i] = j;
  }
  std::string out;
  std::size_t line = 0;  // depths ascend, so places do
  for (std::size_t j = 0; j <= count; ++j) {
    bool broken = false;
    for (; line < lines.size() && place[line] == j; ++line) {
      if (!broken) out += '\n';
      out += lines[line].text + '\n';
      broken = true;
    }
    if (j == count) break;
    if (j > 0 && !broken) out += ' ';
    out += hay.sentences[first + j];
  }
  return out;
}

}  // namespace detail

/// Hides one line of each frame in consecutive sentences of the text, at most `tokens` tokens with the start
/// token, and asks for each. Frames stand in random order, line i at depth (i + u) / frames with u uniform;
/// no value comes twice. The same seed and index give the same context on every machine; samples of one task
/// differ in `index` alone.
///
/// `text_of(id)` gives the text of a token: what tells whether the blank before digits is a token of its own,
/// which then belongs to the opened answer (left to a small model, it is the commonest error).
/// Fails with: bad_shape where the text has fewer than `tokens` tokens, or `tokens` is too small for the
/// lines; bad_file where the tokenizer has no tokens for a question or its answer.
template <class TextOf>
Result<Retrieval> hide(std::span<const Frame> frames, const Haystack& hay, const Encode& encode,
                       const TextOf& text_of, Index tokens, std::uint64_t seed, std::uint64_t index) {
  Random random(mix_seed(mix_seed(seed, std::uint64_t(tokens)), mix_seed(frames.size(), index)));
  Retrieval out;
  out.questions.resize(frames.size());
  for (std::size_t f = 0; f < frames.size(); ++f) {
    Question& q = out.questions[f];
    q.frame = frames[f].name;
    const auto used = [&] {
      return std::any_of(out.questions.begin(), out.questions.begin() + std::ptrdiff_t(f),
                         [&](const Question& other) { return other.value == q.value; });
    };
    do q.value = detail::draw(frames[f].payload, random);
    while (used());
    q.ask = encode("\n\nQuestion: " + std::string(frames[f].question) + "\nAnswer:");
    q.open = encode(" " + std::string(frames[f].line));
    q.payload = encode(" " + q.value);
    if (q.value[0] >= '0' && q.value[0] <= '9' && q.payload.size() > 1 && text_of(q.payload[0]) == " ") {
      q.open.push_back(q.payload[0]);
      q.payload.erase(q.payload.begin());
    }
    if (q.ask.empty() || q.open.empty() || q.payload.empty())
      return Error{Errc::bad_file, "the tokenizer has no tokens for a question or its answer"};
  }
  std::vector<std::size_t> order(frames.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  std::vector<detail::Line> lines;
  Index taken = 1;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const double depth = (double(i) + random.uniform()) / double(order.size());
    Question& q = out.questions[order[i]];
    q.depth = depth;
    lines.push_back({std::string(frames[order[i]].line) + " " + q.value + ".", depth});
    taken += Index(encode("\n" + lines.back().text + "\n").size());
  }
  if (taken >= tokens)
    return Error{Errc::bad_shape, "the context is too short for the lines to hide", taken + 1, tokens};

  // The seeded place: any sentence with enough text after it.
  const std::size_t n = hay.sentences.size();
  Index rest = 0;
  std::size_t starts = n;
  while (starts > 0 && rest < tokens) rest += hay.tokens[--starts];
  if (rest < tokens)
    return Error{Errc::bad_shape, "the text is too short for this context (tokens)", tokens, rest};
  const std::size_t first = std::size_t(random.below(starts + 1));

  std::size_t count = 0;
  for (Index sum = taken; first + count < n && sum + hay.tokens[first + count] <= tokens; ++count)
    sum += hay.tokens[first + count];
  const auto build = [&](std::size_t sentences) {
    out.text = detail::lay_out(hay, first, sentences, lines);
    out.context = encode(out.text);
    out.context.insert(out.context.begin(), start_token);
    return Index(out.context.size()) <= tokens;
  };
  // Joined text may take a token more or less than its sentences alone.
  while (first + count < n && build(count + 1)) ++count;
  while (count > 0 && !build(count)) --count;
  if (count == 0)
    return Error{Errc::bad_shape, "the context is too short for the lines and one sentence", taken + 1, tokens};
  return out;
}

}  // namespace tasks
}  // namespace kvist::inline KVIST_ABI
