// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/tasks.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <numeric>
#include <set>

using namespace kvist;

namespace {

// One token a word, digit or line break, the blank before a digit a token of its own: what matters to the
// generators.
std::vector<std::int32_t> encode(std::string_view text) {
  std::vector<std::int32_t> out;
  std::uint64_t word = 0;
  const auto flush = [&] {
    if (word) out.push_back(std::int32_t(1000 + word % 1000000));
    word = 0;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool digit = c >= '0' && c <= '9';
    if (c == ' ' || c == '\n' || digit) flush();
    if (c == '\n') out.push_back(10);
    else if (digit) out.push_back(c);
    else if (c == ' ' && i + 1 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '9') out.push_back(32);
    else word = word * 131 + std::uint64_t(c);
  }
  flush();
  return out;
}
std::string text_of(std::int32_t id) { return id < 1000 ? std::string(1, char(id)) : "word"; }

tasks::Haystack book() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "Some sentence of plain words without any numbers in it. ";
    text += "A second one follows the first of them. ";
    if (i % 5 == 4) text += "\n\n";
  }
  return tasks::Haystack::of(text, encode);
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("Window i starts at token i * floor(L / W) + 500, after a start token", "[reference][tasks]") {
  std::vector<std::int32_t> text(10000);
  std::iota(text.begin(), text.end(), 1);  // token at place i is i + 1
  const auto w = tasks::text_windows(text, 1024, 4);
  REQUIRE(w);
  REQUIRE(w->size() == 4);
  for (int i = 0; i < 4; ++i) {
    const auto& x = (*w)[std::size_t(i)];
    CHECK(x.prompt.size() == 1024);
    CHECK(x.prompt[0] == 0);
    CHECK(x.prompt[1] == i * 2500 + 500 + 1);
    CHECK(x.prompt[1023] == i * 2500 + 500 + 1023);
    CHECK(x.next.size() == 64);
    CHECK(x.next[0] == i * 2500 + 500 + 1024);
    CHECK(x.after == x.next[63] + 1);
  }
}

TEST_CASE("Too little text for the windows says how many fit", "[reference][tasks]") {
  std::vector<std::int32_t> text(5000);
  const auto w = tasks::text_windows(text, 1024, 8);
  REQUIRE_FALSE(w);
  CHECK(w.error().code == Errc::bad_shape);
  CHECK(w.error().want == 8);
  // 3 windows: the last starts at 2 * 1666 + 500 and needs 1023 + 64 more; 4 would need 3 * 1250 + 1587 =
  // 5337
  CHECK(w.error().got == 3);
  CHECK(tasks::text_windows(text, 1024, 3));
  CHECK_FALSE(tasks::text_windows(text, 1024, 4));
  CHECK(tasks::text_windows(std::span(text).first(1587), 1024, 1)->at(0).after == -1);  // nothing follows
  CHECK(tasks::windows_that_fit(1586, 1024, 1) == 0);
  CHECK(tasks::windows_that_fit(1587, 1024, 1) == 1);
  CHECK(tasks::text_windows(text, 1, 4).error().code == Errc::bad_option);
  CHECK(tasks::text_windows(text, 1024, 0).error().code == Errc::bad_option);
}

TEST_CASE("facts8 hides one line of each frame, each on a line of its own at its depth",
          "[reference][tasks]") {
  const auto hay = book();
  for (const Index tokens : {256, 512, 1024})
    for (std::uint64_t index = 0; index < 6; ++index) {
      const auto r = tasks::hide(tasks::facts8, hay, encode, text_of, tokens, 1, index);
      REQUIRE(r);
      CHECK(Index(r->context.size()) <= tokens);
      CHECK(Index(r->context.size()) > tokens - 16);  // another sentence would not have fitted
      CHECK(r->context[0] == 0);
      REQUIRE(r->questions.size() == 8);
      std::set<std::string> values;
      std::set<int> eighths;
      for (std::size_t f = 0; f < 8; ++f) {
        const auto& q = r->questions[f];
        CHECK(q.frame == tasks::facts8[f].name);
        values.insert(q.value);
        eighths.insert(int(std::floor(q.depth * 8)));
        const std::string line = "\n" + std::string(tasks::facts8[f].line) + " " + q.value + ".\n";
        CHECK(count(r->text, line) == 1);
        // sentences are some 10 tokens, so the border nearest to a depth is never far from it
        const double at =
            double(encode(r->text.substr(0, r->text.find(line))).size()) / double(r->context.size());
        CHECK(at == Approx(q.depth).margin(0.3 * 256 / tokens + 0.05));
      }
      CHECK(values.size() == 8);
      CHECK(eighths.size() == 8);
    }
}

TEST_CASE("facts8 payloads are of their kinds and its prompts as written down", "[reference][tasks]") {
  const auto hay = book();
  std::set<std::string> orders;
  for (std::uint64_t index = 0; index < 40; ++index) {
    const auto r = tasks::hide(tasks::facts8, hay, encode, text_of, 512, 7, index);
    REQUIRE(r);
    const auto& q = r->questions;
    CHECK(q[0].value.size() == 5);
    CHECK(q[0].value[0] != '0');
    CHECK(std::set<char>(q[0].value.begin(), q[0].value.end()).size() == 5);
    CHECK(q[1].value.size() == 5);
    CHECK(q[2].value.size() == 4);
    CHECK(q[4].value.size() == 5);
    CHECK((q[4].value[0] >= 'A' && q[4].value[0] <= 'Z'));
    for (int i = 0; i < 3; ++i) {  // the blank belongs to the opened answer, the digits are the payload
      CHECK(q[i].open.back() == 32);
      CHECK(q[i].payload.size() == q[i].value.size());
    }
    CHECK(q[3].open == encode(" The secret word is"));
    CHECK(q[3].ask == encode("\n\nQuestion: What is the secret word?\nAnswer:"));
    std::string order;
    for (const auto& x : q) order += char('0' + int(x.depth * 8));
    orders.insert(order);
  }
  CHECK(orders.size() > 30);
}

TEST_CASE("The same seed gives the same context, another seed or index another one", "[reference][tasks]") {
  const auto hay = book();
  const auto text = [&](std::uint64_t seed, std::uint64_t index, Index tokens) {
    return tasks::hide(tasks::facts8, hay, encode, text_of, tokens, seed, index)->text;
  };
  CHECK(text(1, 0, 512) == text(1, 0, 512));
  CHECK(text(1, 0, 512) != text(2, 0, 512));
  CHECK(text(1, 0, 512) != text(1, 1, 512));
}

TEST_CASE("passkey is the first frame alone", "[reference][tasks]") {
  const auto hay = tasks::Haystack::of(tasks::filler(20000), encode);
  const auto r = tasks::hide(std::span(tasks::facts8).first(1), hay, encode, text_of, 1024, 1, 3);
  REQUIRE(r);
  REQUIRE(r->questions.size() == 1);
  CHECK(count(r->text, "\nThe pass key is " + r->questions[0].value + ".\n") == 1);
}

TEST_CASE("A context too short for its lines, or a text too short for the context, is an error",
          "[reference][tasks]") {
  const auto hay = book();
  CHECK(tasks::hide(tasks::facts8, hay, encode, text_of, 40, 1, 0).error().code == Errc::bad_shape);
  const auto little = tasks::hide(tasks::facts8, hay, encode, text_of, 20000, 1, 0);
  REQUIRE_FALSE(little);
  CHECK(little.error().want == 20000);
  CHECK(little.error().got > 1000);
  CHECK_FALSE(tasks::hide(tasks::facts8, tasks::Haystack{}, encode, text_of, 512, 1, 0));
  const auto mute = [](std::string_view) { return std::vector<std::int32_t>{}; };
  CHECK(tasks::hide(tasks::facts8, hay, mute, text_of, 512, 1, 0).error().code == Errc::bad_file);
}
