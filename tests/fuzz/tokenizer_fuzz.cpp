// SPDX-License-Identifier: Apache-2.0
// The first byte chooses. Even: the other bytes are a text for a small vocabulary, and come back unchanged. Odd: they
// make a vocabulary and its merges, too, which is read or refused, and encodes without fault.
#include <kvist/reference/tokenizer.hpp>

#include <support/gguf_writer.hpp>
#include <support/tiny_tokenizer.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using kvist::Gguf;
using kvist::Tokenizer;
using kvist::test::bytes_of;
using kvist::test::GgufWriter;
using kvist::test::TinyTokenizer;

const Tokenizer& small() {
  static const Tokenizer tokenizer = [] {
    const TinyTokenizer::Pairs pairs{{"t", "h"},  {"th", "e"},  {" ", "the"},         {"a", "a"},
                                     {"aa", "a"}, {"aa", "aa"}, {"\xc3", "\xa9"},     {"'", "s"},
                                     {" ", " "},  {"  ", "  "}, {"\xf0\x9f", "\x98"}, {"\xf0", "\x9f"}};
    const std::string file = TinyTokenizer(pairs).file();
    return *Tokenizer::from_gguf(*Gguf::parse(bytes_of(file)));
  }();
  return tokenizer;
}

/// Strings of the bytes, each with its length in front.
std::vector<std::string> take_strings(std::string_view& bytes, std::size_t count) {
  std::vector<std::string> out;
  while (out.size() < count && !bytes.empty()) {
    const std::size_t length = static_cast<unsigned char>(bytes[0]) % 16u;
    bytes.remove_prefix(1);
    out.emplace_back(bytes.substr(0, length));
    bytes.remove_prefix(std::min(length, bytes.size()));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    if (small().decode(small().encode(rest, false)) != rest) std::abort();
    if (small().decode(small().encode(rest)) != rest) std::abort();
    return 0;
  }
  GgufWriter w;
  w.string("tokenizer.ggml.model", "gpt2");
  const std::vector<std::string> tokens = take_strings(rest, data[0] / 2u);
  std::vector<std::int32_t> types;
  for (const std::string& token : tokens) types.push_back(token.size() % 5 == 4 ? 3 : 1);
  w.strings("tokenizer.ggml.tokens", tokens).i32s("tokenizer.ggml.token_type", types);
  w.strings("tokenizer.ggml.merges", take_strings(rest, data[0] / 4u));
  w.u32("tokenizer.ggml.eos_token_id", data[0] / 8u);
  const std::string file = w.bytes();
  const auto tokenizer = Tokenizer::from_gguf(*Gguf::parse(bytes_of(file)));
  if (!tokenizer) return 0;
  for (const bool special : {false, true})
    for (const std::int32_t id : tokenizer->encode(rest, special))
      if (id < 0 || std::size_t(id) >= tokenizer->size()) std::abort();
  (void)tokenizer->find(rest);
  return 0;
}
