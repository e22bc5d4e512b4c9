#pragma once
// SPDX-License-Identifier: Apache-2.0
// A small byte-level vocabulary for tests that need a tokenizer but not the real model's.

#include <kvist/core/utf8.hpp>

#include <support/gguf_writer.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace kvist::test {

/// A byte in the alphabet of byte-level vocabularies.
inline std::string spelled(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    char32_t code = b;
    const auto itself = [](unsigned x) {
      return (x >= 0x21 && x <= 0x7e) || (x >= 0xa1 && x <= 0xac) || x >= 0xae;
    };
    if (!itself(b)) {
      code = 0x100;
      for (unsigned x = 0; x < b; ++x) code += itself(x) ? 0 : 1;
    }
    append_utf8(out, code);
  }
  return out;
}

/// Vocabulary: three control tokens (<|endoftext|> 0, <|im_start|> 1, <|im_end|> 2), the bytes but for those of
/// `without`, then what each merge makes. A merge is "left right" in plain bytes.
struct TinyTokenizer {
  std::vector<std::string> tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<std::int32_t> types{3, 3, 3};
  std::vector<std::string> merges;

  using Pairs = std::vector<std::pair<std::string, std::string>>;

  explicit TinyTokenizer(const Pairs& pairs, std::string_view without = "") {
    for (int b = 0; b < 256; ++b)
      if (without.find(static_cast<char>(b)) == std::string_view::npos)
        add(spelled(std::string(1, static_cast<char>(b))), 1);
    for (const auto& [left, right] : pairs) {
      merges.push_back(spelled(left) + " " + spelled(right));
      add(spelled(left + right), 1);
    }
  }
  std::int32_t add(const std::string& token, std::int32_t type) {
    tokens.push_back(token);
    types.push_back(type);
    return static_cast<std::int32_t>(tokens.size() - 1);
  }
  void write(GgufWriter& w) const {
    w.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "smollm");
    w.strings("tokenizer.ggml.tokens", tokens).i32s("tokenizer.ggml.token_type", types);
    w.strings("tokenizer.ggml.merges", merges);
    w.u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 2);
    w.boolean("tokenizer.ggml.add_bos_token", false);
  }
  std::string file() const {
    GgufWriter w;
    write(w);
    return w.bytes();
  }
};

}  // namespace kvist::test
