// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/haystack.hpp>
#include <support/catch.hpp>

using namespace kvist;

TEST_CASE("Paragraphs end at blank lines, are joined by single blanks, and short ones are left out",
          "[reference][Haystack]") {
  const std::string forty(40, 'a'), forty_one(41, 'b');
  const auto p = tasks::paragraphs(
      "CHAPTER I\r\n\r\n  One line of a paragraph that is\n long\tenough   to stay here.\n \n" + forty +
      "\n\n" + forty_one + "\n");
  REQUIRE(p.size() == 2);
  CHECK(p[0] == "One line of a paragraph that is long enough to stay here.");
  CHECK(p[1] == forty_one);
  CHECK(tasks::paragraphs("").empty());
  // characters, not bytes: forty letters of two bytes each are still too short
  std::string umlauts;
  for (int i = 0; i < 40; ++i) umlauts += "\xC3\xBC";
  CHECK(tasks::paragraphs(umlauts).empty());
  CHECK(tasks::paragraphs(umlauts + "\xC3\xBC").size() == 1);
}

TEST_CASE("Sentences end after . ! ? or a quotation mark where a capital or a quotation mark follows",
          "[reference][Haystack]") {
  const auto s = tasks::sentences("He came. \"Why?\" \"No!\" she said. it goes on, e.g. so. Mr. Holmes?  No");
  const std::vector<std::string> want{"He came.", "\"Why?\"", "\"No!\" she said. it goes on, e.g. so.", "Mr.",
                                      "Holmes?  No"};
  CHECK(s == want);
  CHECK(tasks::sentences("").empty());
  CHECK(tasks::sentences("A. B") == std::vector<std::string>{"A.", "B"});
}

TEST_CASE("A haystack counts the tokens of each sentence with the blank before it", "[reference][Haystack]") {
  const tasks::Encode letters = [](std::string_view t) {
    return std::vector<std::int32_t>(t.begin(), t.end());
  };
  const auto h =
      tasks::Haystack::of("This is the first sentence of a text. And this is the next one.\n\nshort", letters);
  REQUIRE(h.sentences.size() == 2);
  CHECK(h.tokens[0] == Index(h.sentences[0].size()) + 1);
  CHECK(h.tokens[1] == Index(h.sentences[1].size()) + 1);
}

TEST_CASE("The filler is five sentences over and over", "[reference][Haystack]") {
  const std::string f = tasks::filler(500);
  CHECK(f.size() >= 500);
  CHECK(f.rfind("The grass is green and the sky is blue. The sun goes up", 0) == 0);
  CHECK(tasks::sentences(f).size() % 5 == 0);
}
