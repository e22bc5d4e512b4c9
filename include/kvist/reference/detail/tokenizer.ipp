// SPDX-License-Identifier: Apache-2.0
// Bodies of reference/tokenizer.hpp.
#include <kvist/core/utf8.hpp>
#include <kvist/reference/pretokenize.hpp>
#include <kvist/reference/tokenizer.hpp>

#include <algorithm>
#include <limits>
#include <map>

namespace kvist::inline KVIST_ABI {

namespace detail {

/// The alphabet in which vocabularies of this kind are written: 188 bytes stand for themselves as code points, the
/// other 68, in rising order, are U+0100 and on.
struct ByteAlphabet {
  std::array<char32_t, 256> code_of{};
  std::array<std::int16_t, 0x144> byte_of{};  // -1 where a code point is not in it

  constexpr ByteAlphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      code_of[b] = itself ? char32_t(b) : next++;
      byte_of[code_of[b]] = static_cast<std::int16_t>(b);
    }
  }
};
inline constexpr ByteAlphabet byte_alphabet;

/// Appends the bytes that a text in the alphabet stands for; other characters stand for themselves.
inline void append_spelled(std::string& out, std::string_view spelled) {
  for (std::size_t at = 0; at < spelled.size();) {
    const Utf8 c = read_utf8(spelled, at);
    const bool known = c.valid && c.code < byte_alphabet.byte_of.size() && byte_alphabet.byte_of[c.code] >= 0;
    if (known) out.push_back(static_cast<char>(static_cast<unsigned char>(byte_alphabet.byte_of[c.code])));
    else out.append(spelled, at, c.length);
    at += c.length;
  }
}

struct NamedRefusal {
  std::string_view name;
  const char* text;
};

// An Error holds literal text only, so that the names met in files are listed.
#define KVIST_DETAIL_MODEL(name) \
  { name, "a tokenizer of kind \"" name "\" (byte-level BPE, \"gpt2\", is read)" }
#define KVIST_DETAIL_PRE(name) \
  { name, "the pre-tokenizer \"" name "\" (\"smollm\" is read)" }
inline constexpr NamedRefusal refused_models[] = {
    KVIST_DETAIL_MODEL("llama"), KVIST_DETAIL_MODEL("bert"),   KVIST_DETAIL_MODEL("t5"),
    KVIST_DETAIL_MODEL("rwkv"),  KVIST_DETAIL_MODEL("plamo2"), KVIST_DETAIL_MODEL("none"),
};
inline constexpr NamedRefusal refused_pre[] = {
    KVIST_DETAIL_PRE("default"),      KVIST_DETAIL_PRE("gpt-2"),
    KVIST_DETAIL_PRE("llama-bpe"),    KVIST_DETAIL_PRE("llama3"),
    KVIST_DETAIL_PRE("llama4"),       KVIST_DETAIL_PRE("falcon"),
    KVIST_DETAIL_PRE("mpt"),          KVIST_DETAIL_PRE("starcoder"),
    KVIST_DETAIL_PRE("deepseek-llm"), KVIST_DETAIL_PRE("deepseek-coder"),
    KVIST_DETAIL_PRE("deepseek-v3"),  KVIST_DETAIL_PRE("command-r"),
    KVIST_DETAIL_PRE("refact"),       KVIST_DETAIL_PRE("stablelm2"),
    KVIST_DETAIL_PRE("qwen2"),        KVIST_DETAIL_PRE("olmo"),
    KVIST_DETAIL_PRE("dbrx"),         KVIST_DETAIL_PRE("tekken"),
    KVIST_DETAIL_PRE("codeshell"),    KVIST_DETAIL_PRE("bloom"),
    KVIST_DETAIL_PRE("exaone"),       KVIST_DETAIL_PRE("chameleon"),
    KVIST_DETAIL_PRE("minerva-7b"),   KVIST_DETAIL_PRE("gpt-4o"),
    KVIST_DETAIL_PRE("chatglm-bpe"),  KVIST_DETAIL_PRE("viking"),
    KVIST_DETAIL_PRE("superbpe"),
};
#undef KVIST_DETAIL_MODEL
#undef KVIST_DETAIL_PRE

template <std::size_t N>
Error refusal(const NamedRefusal (&known)[N], std::string_view name, const char* otherwise) {
  for (const NamedRefusal& r : known)
    if (r.name == name) return {Errc::unsupported, r.text};
  return {Errc::unsupported, otherwise};
}

}  // namespace detail

inline Result<Tokenizer> Tokenizer::from_gguf(const Gguf& file) {
  const auto model = file.string("tokenizer.ggml.model");
  if (!model) return Error{Errc::not_found, "tokenizer.ggml.model: the file has no tokenizer"};
  if (*model != "gpt2")
    return detail::refusal(detail::refused_models, *model,
                           "a tokenizer of this kind (byte-level BPE, \"gpt2\", is read)");
  if (const auto pre = file.string("tokenizer.ggml.pre"); pre && *pre != "smollm")
    return detail::refusal(detail::refused_pre, *pre, "a pre-tokenizer of this name (\"smollm\" is read)");
  Tokenizer out;
  Ids ids;
  if (const Status read = out.read_vocabulary(file, ids); !read) return read.error();
  if (const Status read = out.read_merges(file, ids); !read) return read.error();
  if (const Status read = out.read_special_ids(file); !read) return read.error();
  return out;
}

inline Status Tokenizer::read_vocabulary(const Gguf& file, Ids& ids) {
  const auto texts = file.strings("tokenizer.ggml.tokens");
  if (!texts || texts->empty())
    return Error{Errc::not_found, "tokenizer.ggml.tokens: the file has no vocabulary"};
  if (texts->size() > std::size_t{std::numeric_limits<Token>::max()})
    return Error{Errc::bad_file, "tokenizer.ggml.tokens: more tokens than 32-bit ids"};
  const auto types = file.integers("tokenizer.ggml.token_type");
  if (types && types->size() != texts->size())
    return Error{Errc::bad_file, "tokenizer.ggml.token_type: not one for each token",
                 (long long)texts->size(), (long long)types->size()};
  tokens_.resize(texts->size());
  ids.reserve(texts->size());
  for (std::size_t i = 0; i < texts->size(); ++i) {
    const std::string_view text = (*texts)[i];
    const bool control = types && (*types)[i] == 3, user_defined = types && (*types)[i] == 4;
    tokens_[i].first = bytes_.size();
    tokens_[i].special = control;
    if (control || user_defined) {
      bytes_.append(text);  // these are written as they are, not in the byte alphabet
      if (!text.empty() && special_.emplace(text, static_cast<Token>(i)).second)
        special_lengths_[static_cast<unsigned char>(text[0])].push_back(text.size());
    } else {
      detail::append_spelled(bytes_, text);
    }
    tokens_[i].length = bytes_.size() - tokens_[i].first;
    ids.emplace(text, static_cast<Symbol>(i));  // of equal texts the lower id
  }
  for (std::vector<std::size_t>& lengths : special_lengths_) {
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
  return Done{};
}

inline Status Tokenizer::read_merges(const Gguf& file, const Ids& ids) {
  const auto lines = file.strings("tokenizer.ggml.merges");
  if (!lines) return Error{Errc::not_found, "tokenizer.ggml.merges: the file has no merges"};
  if (lines->size() > 0x40000000) return Error{Errc::bad_file, "tokenizer.ggml.merges: too many"};

  std::map<std::string, Symbol, std::less<>> extra;
  const auto symbol = [&](std::string_view text) {
    if (const auto id = ids.find(text); id != ids.end()) return id->second;
    if (const auto id = extra.find(text); id != extra.end()) return id->second;
    const auto next = static_cast<Symbol>(tokens_.size() + extra_.size());
    detail::append_spelled(extra_.emplace_back(), text);
    extra.emplace(text, next);
    return next;
  };
  for (unsigned b = 0; b < 256; ++b) {
    std::string text;
    append_utf8(text, detail::byte_alphabet.code_of[b]);
    of_byte_[b] = symbol(text);
  }
  merges_.reserve(lines->size());
  std::string whole;
  for (std::size_t rank = 0; rank < lines->size(); ++rank) {
    const std::string_view line = (*lines)[rank];
    const std::size_t blank = line.find(' ', 1);
    if (blank == std::string_view::npos || blank + 1 == line.size())
      return Error{Errc::bad_file, "tokenizer.ggml.merges: a line is not two parts", 0, (long long)rank};
    const std::string_view left = line.substr(0, blank), right = line.substr(blank + 1);
    whole.assign(left).append(right);
    const Symbol a = symbol(left), b = symbol(right);
    merges_.emplace(pair_of(a, b), Merge{static_cast<std::uint32_t>(rank), symbol(whole)});
  }
  return Done{};
}

inline Status Tokenizer::read_special_ids(const Gguf& file) {
  struct Key {
    const char* key;
    const char* fault;
    std::optional<Token>& id;
  };
  const Key keys[] = {
      {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.bos_token_id: no token has this id", bos_},
      {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eos_token_id: no token has this id", eos_},
      {"tokenizer.ggml.padding_token_id", "tokenizer.ggml.padding_token_id: no token has this id", padding_},
      {"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.unknown_token_id: no token has this id", unknown_},
  };
  for (const Key& k : keys) {
    if (file.find(k.key) == nullptr) continue;
    const auto id = file.u64(k.key);
    if (!id || *id >= size())
      return Error{Errc::bad_file, k.fault, (long long)size(),
                   id && std::in_range<Token>(*id) ? (long long)*id : -1};
    k.id = static_cast<Token>(*id);
  }
  adds_bos_ = file.boolean("tokenizer.ggml.add_bos_token").value_or(false);
  const std::string_view chat = file.string("tokenizer.chat_template").value_or("");
  chatml_ = chat.find("<|im_start|>") != std::string_view::npos;
  return Done{};
}

inline std::vector<Tokenizer::Token> Tokenizer::encode(std::string_view text, bool parse_special) const {
  std::vector<Token> out;
  Workspace work;
  std::size_t start = 0;  // of the text that is not encoded yet
  for (std::size_t at = 0; parse_special && at < text.size();) {
    const auto [length, id] = special_at(text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    encode_text(text.substr(start, at - start), out, work);
    out.push_back(id);
    start = at += length;
  }
  encode_text(text.substr(start), out, work);
  return out;
}

/// The longest special token written at text[at]: its length (0: none) and id.
inline std::pair<std::size_t, Tokenizer::Token> Tokenizer::special_at(std::string_view text,
                                                                      std::size_t at) const {
  for (const std::size_t length : special_lengths_[static_cast<unsigned char>(text[at])]) {
    if (length > text.size() - at) continue;
    if (const auto found = special_.find(text.substr(at, length)); found != special_.end())
      return {length, found->second};
  }
  return {0, 0};
}

inline void Tokenizer::encode_text(std::string_view text, std::vector<Token>& out, Workspace& work) const {
  constexpr std::size_t most = std::size_t{1} << 30;  // places in a piece are 32-bit: a longer one is cut
  pretokenize(text, [&](std::string_view piece) {
    for (; piece.size() > most; piece.remove_prefix(most)) encode_piece(piece.substr(0, most), out, work);
    encode_piece(piece, out, work);
  });
}

/// Merges the pairs of one piece, lowest rank first, leftmost among equals. The queue keeps candidates whose pair
/// has changed meanwhile; they are known by their symbols and passed over, so that a merge costs O(log n).
inline void Tokenizer::encode_piece(std::string_view piece, std::vector<Token>& out, Workspace& work) const {
  constexpr Symbol gone = std::numeric_limits<Symbol>::max();
  const auto n = static_cast<std::uint32_t>(piece.size());
  std::vector<Node>& nodes = work.nodes;
  std::vector<Candidate>& queue = work.queue;
  nodes.clear();
  queue.clear();
  for (std::uint32_t i = 0; i < n; ++i)
    nodes.push_back({of_byte_[static_cast<unsigned char>(piece[i])], i - 1, i + 1});  // 0 - 1 is never followed

  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto consider = [&](std::uint32_t at) {
    const Symbol left = nodes[at].symbol, right = nodes[nodes[at].after].symbol;
    const auto merge = merges_.find(pair_of(left, right));
    if (merge == merges_.end()) return false;
    queue.push_back({merge->second.rank, at, left, right, merge->second.result});
    return true;
  };
  for (std::uint32_t i = 0; i + 1 < n; ++i) consider(i);
  std::make_heap(queue.begin(), queue.end(), later);

  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const Candidate c = queue.back();
    queue.pop_back();
    const std::uint32_t right = nodes[c.at].after;
    if (nodes[c.at].symbol != c.left || right >= n || nodes[right].symbol != c.right) continue;
    nodes[c.at].symbol = c.result;
    nodes[right].symbol = gone;
    const std::uint32_t after = nodes[c.at].after = nodes[right].after;
    if (after < n) {
      nodes[after].before = c.at;
      if (consider(c.at)) std::push_heap(queue.begin(), queue.end(), later);
    }
    if (c.at > 0 && consider(nodes[c.at].before)) std::push_heap(queue.begin(), queue.end(), later);
  }
  for (std::uint32_t at = 0; at < n; at = nodes[at].after) put(nodes[at].symbol, out);
}

/// Appends a symbol's token; one that is no token falls back to its single bytes, and bytes without one are dropped.
inline void Tokenizer::put(Symbol symbol, std::vector<Token>& out) const {
  if (symbol < tokens_.size()) {
    out.push_back(static_cast<Token>(symbol));
    return;
  }
  for (const char c : extra_[symbol - tokens_.size()])
    if (const Symbol byte = of_byte_[static_cast<unsigned char>(c)]; byte < tokens_.size())
      out.push_back(static_cast<Token>(byte));
}

inline std::string Tokenizer::decode(std::span<const Token> ids, bool with_special) const {
  std::string out;
  for (const Token id : ids)
    if (with_special || !is_special(id)) out += token_bytes(id);
  return out;
}

inline std::string_view Tokenizer::token_bytes(Token id) const {
  if (!in_range(id)) return {};
  const TokenFacts& t = tokens_[std::size_t(id)];
  return std::string_view(bytes_).substr(t.first, t.length);
}

inline std::optional<Tokenizer::Token> Tokenizer::find(std::string_view bytes) const {
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    if (token_bytes(static_cast<Token>(i)) == bytes) return static_cast<Token>(i);
  return std::nullopt;
}

inline bool Tokenizer::ends_text(Token id) const {
  if (!in_range(id)) return false;
  const std::string_view text = token_bytes(id);
  return id == eos_ || (is_special(id) && (text == "<|im_end|>" || text == "<|endoftext|>"));
}

inline std::string Tokenizer::chat_prompt(std::string_view user, std::string_view system) {
  std::string out = "<|im_start|>system\n";
  out.append(system).append("<|im_end|>\n<|im_start|>user\n");
  out.append(user).append("<|im_end|>\n<|im_start|>assistant\n");
  return out;
}

}  // namespace kvist::inline KVIST_ABI
