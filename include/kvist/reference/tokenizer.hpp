#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/reference/gguf.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The system line that SmolLM2's chat template puts in where a conversation has none.
inline constexpr std::string_view smollm_system_line =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/// The byte-level BPE tokenizer stored in a GGUF file (tokenizer.ggml.model "gpt2", .pre "smollm").
///
/// Text is cut at special tokens, then by pretokenize(); the bytes of each piece are merged pair by pair, lowest rank
/// first, leftmost among equals. Any bytes are taken: what is not valid UTF-8 is cut off like punctuation and encoded
/// byte by byte. A byte that has no token in the vocabulary is dropped (SmolLM2 lacks 21 that never occur in text).
/// Owns what it needs: the file may go. Const and safe to share between threads.
/// Source: Sennrich et al. 2016, arXiv 1508.07909; Radford et al. 2019 (GPT-2); llama.cpp, src/llama-vocab.cpp.
/// Cost: encode is O(n log n) in the longest piece, O(n) in the text.
class Tokenizer {
 public:
  using Token = std::int32_t;

  /// Fails with: not_found (no tokens or merges); unsupported (another kind of tokenizer or pre-tokenizer, named);
  /// bad_file (parts that do not fit each other). A file without tokenizer.ggml.pre is read as "smollm".
  static Result<Tokenizer> from_gguf(const Gguf& file);

  /// Token ids of `text`. With `parse_special`, special tokens written out in it ("<|im_end|>") become their one id
  /// (of several that fit, the leftmost, then the longest); without, they are text like any other.
  std::vector<Token> encode(std::string_view text, bool parse_special = true) const;

  /// The bytes of all ids, one after another (a cut inside a character leaves invalid UTF-8). Special tokens are
  /// written out, or left out without `with_special`; ids outside the vocabulary are left out.
  std::string decode(std::span<const Token> ids, bool with_special = true) const;

  /// The bytes that a token stands for; empty where there is no such token.
  std::string_view token_bytes(Token id) const;
  /// The token that is written exactly so, special ones included.
  std::optional<Token> find(std::string_view bytes) const;

  std::size_t size() const { return tokens_.size(); }
  bool is_special(Token id) const { return in_range(id) && tokens_[std::size_t(id)].special; }
  std::optional<Token> bos() const { return bos_; }
  std::optional<Token> eos() const { return eos_; }
  std::optional<Token> padding() const { return padding_; }
  std::optional<Token> unknown() const { return unknown_; }
  /// Does the file ask for a start token before each text? encode() never adds one.
  bool adds_bos() const { return adds_bos_; }
  /// Does generation stop at this token (the end token, <|im_end|>, <|endoftext|>)?
  bool ends_text(Token id) const;

  /// Is the file's chat template of the ChatML kind that chat_prompt() writes?
  bool speaks_chatml() const { return chatml_; }
  /// A conversation's start as ChatML, up to where the assistant answers; encode it with special tokens.
  static std::string chat_prompt(std::string_view user, std::string_view system = smollm_system_line);

 private:
  using Symbol = std::uint32_t;  // a token's id, or size() + i for a merge's part that is no token

  struct TokenFacts {
    std::size_t first = 0, length = 0;  // its bytes in bytes_
    bool special = false;
  };
  struct Merge {
    std::uint32_t rank = 0;
    Symbol result = 0;
  };
  struct PairHash {
    std::size_t operator()(std::uint64_t pair) const {
      pair *= 0x9e3779b97f4a7c15u;
      return static_cast<std::size_t>(pair ^ (pair >> 32));
    }
  };
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  /// A pair of neighbours that may be merged: the order of the queue, and what it was when it was put there.
  struct Candidate {
    std::uint32_t rank, at;
    Symbol left, right, result;
  };
  struct Node {
    Symbol symbol;
    std::uint32_t before, after;  // places of its neighbours
  };
  /// Memory that the pieces of one text share.
  struct Workspace {
    std::vector<Node> nodes;
    std::vector<Candidate> queue;
  };

  bool in_range(Token id) const { return id >= 0 && std::size_t(id) < tokens_.size(); }
  static constexpr std::uint64_t pair_of(Symbol left, Symbol right) {
    return (std::uint64_t{left} << 32) | right;
  }
  using Ids = std::unordered_map<std::string_view, Symbol>;  // by the token's text in the file

  Status read_vocabulary(const Gguf& file, Ids& ids);
  Status read_merges(const Gguf& file, const Ids& ids);
  Status read_special_ids(const Gguf& file);
  void encode_text(std::string_view text, std::vector<Token>& out, Workspace& work) const;
  void encode_piece(std::string_view piece, std::vector<Token>& out, Workspace& work) const;
  void put(Symbol symbol, std::vector<Token>& out) const;
  std::pair<std::size_t, Token> special_at(std::string_view text, std::size_t at) const;

  std::string bytes_;               // of all tokens, decoded, one after another
  std::vector<TokenFacts> tokens_;  // [vocabulary]
  std::vector<std::string> extra_;  // bytes of symbols that are no token
  std::array<Symbol, 256> of_byte_{};
  std::unordered_map<std::uint64_t, Merge, PairHash> merges_;
  std::unordered_map<std::string, Token, TextHash, std::equal_to<>> special_;
  std::array<std::vector<std::size_t>, 256> special_lengths_;  // by first byte, descending
  std::optional<Token> bos_, eos_, padding_, unknown_;
  bool adds_bos_ = false, chatml_ = false;
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/reference/detail/tokenizer.ipp>
