// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/io/json.hpp>
#include <kvist/reference/tokenizer.hpp>

#include <support/assets.hpp>
#include <support/catch.hpp>
#include <support/gguf_writer.hpp>
#include <support/tiny_tokenizer.hpp>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

using kvist::Errc;
using kvist::Gguf;
using kvist::Tokenizer;
using kvist::test::bytes_of;
using kvist::test::GgufWriter;
using kvist::test::TinyTokenizer;

namespace {

using Ids = std::vector<std::int32_t>;

Tokenizer load(const TinyTokenizer& tiny) {
  const std::string file = tiny.file();
  auto t = Tokenizer::from_gguf(*Gguf::parse(bytes_of(file)));
  REQUIRE(t.has_value());
  return *std::move(t);  // the file's bytes end here: the tokenizer owns what it needs
}

kvist::Error refusal(const GgufWriter& w) {
  const std::string file = w.bytes();
  const auto g = Gguf::parse(bytes_of(file));
  REQUIRE(g.has_value());
  const auto t = Tokenizer::from_gguf(*g);
  REQUIRE_FALSE(t.has_value());
  return t.error();
}

std::optional<Tokenizer> real_tokenizer() {
  const auto path = kvist::test::model_path();
  if (!path) return std::nullopt;
  const auto file = Gguf::open(*path);
  REQUIRE(file.has_value());
  auto t = Tokenizer::from_gguf(*file);
  REQUIRE(t.has_value());
  return *std::move(t);
}

Ids ids_of(const kvist::Json& array) {
  Ids out;
  for (const kvist::Json& id : array.elements()) out.push_back(std::int32_t(id.as_int(-1)));
  return out;
}

/// Byte-pair merges by their definition: look at all pairs, merge the leftmost of lowest rank, start again.
std::vector<std::string> naive_merges(std::string_view piece, const TinyTokenizer::Pairs& pairs) {
  std::vector<std::string> parts;
  for (const char c : piece) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best = pairs.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = std::find(pairs.begin(), pairs.end(), std::pair(parts[i], parts[i + 1]));
      const auto rank = std::size_t(found - pairs.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == pairs.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + std::ptrdiff_t(at) + 1);
  }
}

}  // namespace

TEST_CASE("Tokenizer merges the pair of lowest rank first, leftmost among equals", "[reference][Tokenizer]") {
  const Tokenizer t =
      load(TinyTokenizer(TinyTokenizer::Pairs{{"b", "c"}, {"a", "b"}, {"a", "a"}, {"ab", "c"}}));
  const auto words = [&](std::string_view text) {
    std::vector<std::string> out;
    for (const std::int32_t id : t.encode(text)) out.emplace_back(t.token_bytes(id));
    return out;
  };
  using Words = std::vector<std::string>;
  CHECK(words("abc") == Words{"a", "bc"});
  CHECK(words("aaa") == Words{"aa", "a"});
  CHECK(words("aaaaa") == Words{"aa", "aa", "a"});
  CHECK(words("aab") == Words{"a", "ab"});
  CHECK(words("ab c") == Words{"ab", " ", "c"});
  CHECK(words("") == Words{});
  CHECK(words(" ") == Words{" "});
}

TEST_CASE("Tokenizer equals the definition of byte-pair merges on random pieces", "[reference][Tokenizer]") {
  kvist::Random random(9);
  for (int round = 0; round < 30; ++round) {
    TinyTokenizer::Pairs pairs;
    std::vector<std::string> parts{"a", "b", "c", "d"};
    while (pairs.size() < 25) {
      const std::pair<std::string, std::string> pair{parts[random.below(parts.size())],
                                                     parts[random.below(parts.size())]};
      if (std::find(pairs.begin(), pairs.end(), pair) != pairs.end()) continue;
      pairs.push_back(pair);
      if (const std::string whole = pair.first + pair.second;
          std::find(parts.begin(), parts.end(), whole) == parts.end())
        parts.push_back(whole);
    }
    const Tokenizer t = load(TinyTokenizer(pairs));
    for (int k = 0; k < 100; ++k) {
      std::string text;
      for (std::uint64_t n = random.below(40); n > 0; --n)
        text.push_back(static_cast<char>('a' + random.below(4)));
      std::vector<std::string> got;
      for (const std::int32_t id : t.encode(text)) got.emplace_back(t.token_bytes(id));
      REQUIRE(got == naive_merges(text, pairs));
      REQUIRE(t.decode(t.encode(text)) == text);
    }
  }
}

TEST_CASE("Tokenizer finds special tokens only where asked: the leftmost, then the longest",
          "[reference][Tokenizer]") {
  TinyTokenizer tiny(TinyTokenizer::Pairs{});
  const std::int32_t longer = tiny.add("<|im_end|>!", 4), empty = tiny.add("", 3);
  const Tokenizer t = load(tiny);
  CHECK(t.encode("<|im_end|>") == Ids{2});
  CHECK(t.encode("<|im_end|>!") == Ids{longer});
  CHECK(t.encode("<|im_end|><|im_start|><|im_end|>") == Ids{2, 1, 2});
  const Ids around = t.encode("a<|im_end|>b");
  REQUIRE(around.size() == 3);
  CHECK(around[1] == 2);
  CHECK(t.encode("<|im_end|>", false).size() == 10);
  CHECK(t.encode("<|im_en").size() == 7);
  CHECK(t.decode(t.encode("a<|im_end|>b", false)) == "a<|im_end|>b");
  CHECK(t.decode(around) == "a<|im_end|>b");
  CHECK(t.decode(around, false) == "ab");
  CHECK(t.is_special(2));
  CHECK_FALSE(t.is_special(longer));  // user-defined: found in text, but no control token
  CHECK(t.is_special(empty));
  CHECK(t.find("<|im_start|>") == 1);
  CHECK(t.find("no such token") == std::nullopt);
  CHECK(t.bos() == 0);
  CHECK(t.eos() == 2);
  CHECK(t.padding() == std::nullopt);
  CHECK(t.ends_text(2));
  CHECK(t.ends_text(0));
  CHECK_FALSE(t.ends_text(1));
  CHECK_FALSE(t.ends_text(-1));
}

TEST_CASE("Tokenizer takes any bytes and drops those without a token", "[reference][Tokenizer]") {
  const Tokenizer all = load(TinyTokenizer(TinyTokenizer::Pairs{{"\xc3", "\xa9"}}));
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  CHECK(all.decode(all.encode(bytes)) == bytes);
  CHECK(all.encode("\xc3\xa9").size() == 1);
  kvist::Random random(2);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (std::uint64_t n = random.below(60); n > 0; --n) text.push_back(static_cast<char>(random.below(256)));
    REQUIRE(all.decode(all.encode(text)) == text);
  }
  const Tokenizer some = load(TinyTokenizer(TinyTokenizer::Pairs{}, "\x04\xff"));
  CHECK(some.decode(some.encode("a\x04"
                                "b\xff")) == "ab");
  CHECK(some.token_bytes(-1).empty());
  CHECK(some.token_bytes(100000).empty());
  CHECK(some.decode(Ids{-5, 100000}).empty());
}

TEST_CASE("A merge whose result is no token falls back to single bytes", "[reference][Tokenizer]") {
  TinyTokenizer tiny(TinyTokenizer::Pairs{});
  tiny.merges.push_back("a b");
  tiny.merges.push_back("ab c");
  tiny.add("abc", 1);
  const Tokenizer t = load(tiny);
  CHECK(t.encode("abc").size() == 1);
  CHECK(t.encode("ab") == Ids{t.encode("a")[0], t.encode("b")[0]});
}

TEST_CASE("Tokenizer refuses other kinds by name and parts that do not fit", "[reference][Tokenizer]") {
  const auto says = [](const kvist::Error& e, std::string_view word) {
    return std::string_view(e.what).find(word) != std::string_view::npos;
  };
  CHECK(refusal(GgufWriter()).code == Errc::not_found);
  const kvist::Error spm = refusal(GgufWriter().string("tokenizer.ggml.model", "llama"));
  CHECK(spm.code == Errc::unsupported);
  CHECK(says(spm, "llama"));
  CHECK(refusal(GgufWriter().string("tokenizer.ggml.model", "?")).code == Errc::unsupported);
  GgufWriter pre;
  pre.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "qwen2");
  CHECK(refusal(pre).code == Errc::unsupported);
  CHECK(says(refusal(pre), "qwen2"));
  GgufWriter model;
  model.string("tokenizer.ggml.model", "gpt2");
  CHECK(refusal(model).code == Errc::not_found);
  CHECK(refusal(GgufWriter(model).strings("tokenizer.ggml.tokens", {})).code == Errc::not_found);
  GgufWriter tokens = model;
  tokens.strings("tokenizer.ggml.tokens", {"a", "b"});
  CHECK(refusal(tokens).code == Errc::not_found);
  GgufWriter whole = tokens;
  whole.strings("tokenizer.ggml.merges", {});
  const std::string bytes = whole.bytes();
  CHECK(Tokenizer::from_gguf(*Gguf::parse(bytes_of(bytes))).has_value());  // without .pre and token types
  CHECK(refusal(GgufWriter(whole).i32s("tokenizer.ggml.token_type", {1})).code == Errc::bad_file);
  CHECK(refusal(GgufWriter(whole).u32("tokenizer.ggml.eos_token_id", 2)).code == Errc::bad_file);
  CHECK(refusal(GgufWriter(whole).i32("tokenizer.ggml.bos_token_id", -1)).code == Errc::bad_file);
  for (const char* line : {"", " ", "a", "a ", " a", "ab"})
    CHECK(refusal(GgufWriter(tokens).strings("tokenizer.ggml.merges", {line})).code == Errc::bad_file);
}

TEST_CASE("The chat prompt is the model's own template", "[reference][Tokenizer]") {
  CHECK(Tokenizer::chat_prompt("Hi") ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(Tokenizer::chat_prompt("Hi", "Be brief.") ==
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("The real model's tokenizer gives the ids of the reference implementation",
          "[reference][Tokenizer][golden]") {
  const auto golden = kvist::test::golden_path();
  const auto t = real_tokenizer();
  if (!t) KVIST_SKIP("the SmolLM2 model");
  if (!golden) KVIST_SKIP("reference values");
  const auto text = kvist::read_file(*golden + "/model/tokenizer.json");
  REQUIRE(text.has_value());
  const auto json = kvist::Json::parse(*text);
  REQUIRE(json.has_value());
  const kvist::Json& reference = *json;
  CHECK(std::int64_t(t->size()) == reference["model_vocabulary"].as_int());
  REQUIRE(reference["strings"].size() > 80);
  for (const kvist::Json& s : reference["strings"].elements()) {
    INFO(std::string(s["name"].as_string()));
    const std::string_view input = s["text"].as_string();
    const Ids ids = t->encode(input);
    REQUIRE(ids == ids_of(s["ids"]));
    REQUIRE(t->encode(input, false) == ids_of(s["ids_no_special"]));
    CHECK(t->decode(ids) == s["decoded"].as_string());
    CHECK((t->decode(ids) == input) == s["lossless"].as_bool());
    for (std::size_t i = 0; i < s["token_bytes_hex"].size(); ++i) {
      std::string hex;
      for (const char c : t->token_bytes(ids[i])) {
        constexpr const char* digits = "0123456789abcdef";
        hex += {digits[(c >> 4) & 15], digits[c & 15]};
      }
      CHECK(hex == s["token_bytes_hex"][i].as_string());
    }
  }
  Ids dropped;
  for (int b = 0; b < 256; ++b)
    if (t->encode(std::string(1, static_cast<char>(b))).empty()) dropped.push_back(b);
  CHECK(dropped == ids_of(reference["bytes_without_token"]));

  const auto prompts_text = kvist::read_file(*golden + "/model/prompts.json");
  REQUIRE(prompts_text.has_value());
  const auto prompts = kvist::Json::parse(*prompts_text);
  REQUIRE(prompts.has_value());
  const std::string_view chat = (*prompts)["chat"]["text"].as_string();
  CHECK(Tokenizer::chat_prompt(
            "Name three fruits that are red, and say in one short sentence why apples float in water.") == chat);
  CHECK(std::int64_t(t->encode(chat).size()) == (*prompts)["chat"]["tokens"].as_int());
}

TEST_CASE("The real model's tokenizer knows its special tokens", "[reference][Tokenizer][model]") {
  const auto t = real_tokenizer();
  if (!t) KVIST_SKIP("the SmolLM2 model");
  CHECK(t->bos() == 1);
  CHECK(t->eos() == 2);
  CHECK(t->padding() == 2);
  CHECK(t->unknown() == 0);
  CHECK_FALSE(t->adds_bos());
  CHECK(t->speaks_chatml());
  CHECK(t->find("<|endoftext|>") == 0);
  CHECK(t->ends_text(0));
  CHECK(t->ends_text(2));
  for (std::int32_t id = 0; id < 17; ++id) CHECK(t->is_special(id));
  CHECK_FALSE(t->is_special(17));
}

TEST_CASE("Long texts and long runs of one letter are encoded in little time",
          "[reference][Tokenizer][model]") {
  const auto t = real_tokenizer();
  if (!t) KVIST_SKIP("the SmolLM2 model");
  const auto seconds = [&](const std::string& text) {
    const auto start = std::chrono::steady_clock::now();
    CHECK(t->decode(t->encode(text)) == text);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // Quadratic time would take hours on these; the bound leaves room for sanitizers and busy machines.
  std::string words;
  while (words.size() < 1000000) words += "It is a truth universally acknowledged, in 1813 and since. ";
  CHECK(seconds(words) < 30);
  CHECK(seconds(std::string(1000000, 'a')) < 30);
  CHECK(seconds(std::string(1000000, ' ')) < 30);
  CHECK(seconds(std::string(1000000, '<')) < 30);
}
