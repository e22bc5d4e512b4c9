#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "eval_cache.hpp"
#include "outcome.hpp"

#include <kvist/reference/model.hpp>
#include <kvist/reference/thread_pool.hpp>
#include <kvist/reference/tokenizer.hpp>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvist_eval {

using kvist::Index;
using kvist::Pos;
using kvist::Token;

/// What a pass over tokens is for.
struct Pass {
  Index logits = 0;        ///< of the last so many tokens; -1: of all
  bool prompt = false;     ///< the cache gets evidence and may evict
  bool last_chunk = true;  ///< of the prompt
  Index step = 0;          ///< > 0: a live decode step of that number
  /// Logits [count, vocabulary] of tokens first .. first + count - 1 of the pass.
  std::function<void(Index first, Index count, std::span<const float> logits)> on_logits = {};
  /// Attention outputs [n, q_heads, dv] of a layer.
  std::function<void(int layer, std::span<const float> out)> on_attention = {};
};

/// A model with its tokenizer and threads. The transformer itself is behind it, compiled once.
class Engine {
 public:
  static Outcome<std::unique_ptr<Engine>> load(const std::string& name, int threads);
  ~Engine();

  const kvist::ModelConfig& config() const { return model_.config(); }
  const kvist::Shape& shape() const { return model_.shape(); }
  const kvist::Tokenizer& tokenizer() const { return tokenizer_; }
  kvist::ThreadPool& pool() { return pool_; }
  const std::string& name() const { return name_; }  ///< as it was asked for

  std::vector<Token> encode(std::string_view text, bool special = true) const {
    return tokenizer_.encode(text, special);
  }

  /// Appends tokens to the cache, which must wait for position `first`.
  kvist::Status forward(std::span<const Token> ids, Pos first, EvalCache& cache, const Pass& pass);

 private:
  Engine(std::string name, kvist::Model model, kvist::Tokenizer tokenizer, int threads);
  struct Runner;

  std::string name_;
  kvist::Model model_;
  kvist::Tokenizer tokenizer_;
  kvist::ThreadPool pool_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace kvist_eval
