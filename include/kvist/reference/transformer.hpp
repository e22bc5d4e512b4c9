#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/executor.hpp>
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/eigen.hpp>
#include <kvist/reference/matmul.hpp>
#include <kvist/reference/model.hpp>
#include <kvist/reference/prefill_attention.hpp>
#include <kvist/reference/rope_angles.hpp>
#include <kvist/reference/thread_pool.hpp>
#include <kvist/reference/transformer_cache.hpp>
#include <kvist/view/evidence.hpp>
#include <kvist/view/head.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// ForwardCall::logits: of every token of the call.
inline constexpr Index all_tokens = -1;

/// What a forward pass is for.
struct ForwardCall {
  Index logits = 1;  ///< logits of the last so many tokens of the call; 0: none; all_tokens: of every one
  bool prompt =
      false;  ///< a prompt or a chunk of it: the cache is given the evidence that it wants, and may evict
  bool last_chunk = true;  ///< of a prompt: its end (Clock::last)
  Index step = 0;  ///< of one token: > 0 is a live decode step of that number, after which the cache may evict
};

/// Hooks that see nothing. Others have any of these functions, called on the caller's thread, layer by layer:
///   on_queries(layer, q, first)        q [n, q_heads, dk] as they go into the attention
///   on_keys(layer, k, first)           k [n, kv_heads, dk] as they go into the cache
///   on_keys_before_rope(layer, k, first)
///   on_values(layer, v, first)         v [n, kv_heads, dv]
///   on_attention(layer, out, first)    out [n, q_heads, dv]
///   on_logits(token, count, logits)    logits [count, vocabulary] of tokens token .. token + count - 1 of the call, in
///                                      blocks: where it is there, forward() keeps none
/// Arrays are std::span<const float>; `first` is the position of the first token.
struct NoHooks {};

/// Runs a Model token by token or many tokens at once, with the cache as a template argument.
///
///   x = E[id]
///   per layer:  h = norm(x) * w_a;  q, k, v = Wq h, Wk h, Wv h;  q, k = RoPE(q, k)
///               x += Wo softmax(q K^T / sqrt(dk)) V
///               h = norm(x) * w_f;  x += Wdown (silu(Wgate h) * Wup h)
///   logits = Wout (norm(x) * w)
///
/// All arithmetic is f32. Results are the same, bit for bit, for any number of threads of the executor; a prompt in
/// chunks differs from one in one piece by rounding. A transformer holds scratch memory only: it serves any number of
/// caches, one call at a time.
template <Executor E = ThreadPool>
class Transformer {
 public:
  /// Both are kept as references.
  Transformer(const Model& model, E& executor)
      : model_(model), executor_(executor), attention_(model.shape()) {
    reserve(1);
  }

  const Model& model() const { return model_; }
  E& executor() const { return executor_; }

  /// Makes room for calls of up to n tokens with up to `logits` rows of logits; a single token needs no more than the
  /// constructor made, so decoding allocates nothing here.
  void reserve(Index n, Index logits = 1);

  /// Appends n >= 1 tokens, the first at position `first`, to the cache and returns the logits asked for:
  /// [rows, vocabulary], valid until the next call.
  ///
  /// A prompt, or many tokens, are attended to exactly: the cache's entries as it reads them out and the call's own keys and
  /// values as they are. Then, in each layer, the tokens are appended, and of a prompt the evidence is handed over, so that
  /// the cache can shrink before the next layer grows. A few tokens that are no prompt are attended to by a cache that can
  /// (AttendsTokens), as precisely as its stores do it, and then appended; a single one is appended first.
  /// Fails with: bad_shape (no tokens, a position that the cache does not wait for, another model's cache); bad_value
  /// (an id outside the vocabulary); unsupported (many tokens at once over raw keys whose positions the cache does not
  /// count by slot); what the cache fails with. After a failure of the cache its layers may differ in length.
  template <TransformerCache C, class Hooks = NoHooks>
  Result<std::span<const float>> forward(std::span<const Token> ids, Pos first, C& cache,
                                         const ForwardCall& call = {}, Hooks&& hooks = {});

 private:
  static constexpr Index block_tokens = 32;  // of the row by row work
  static constexpr Index logits_block = 64;  // tokens whose logits go to a hook at once

  template <class F>
  void for_each_row(Index n, F&& f) {
    const auto block = [&](Index b) {
      for (Index t = b * block_tokens; t < std::min(n, (b + 1) * block_tokens); ++t) f(t);
    };
    const Index blocks = (n + block_tokens - 1) / block_tokens;
    executor_.for_each(blocks, block);
  }
  /// h = norm(x) * weight, row by row.
  void norm(const float* x, Index t, const std::vector<float>& weight, float* h) const;
  void multiply(std::initializer_list<Product> products, const float* x, Index n) {
    matmul_(std::span<const Product>(products.begin(), products.size()), x, n, executor_);
  }
  static Product product(const Linear& l, detail::Floats& y) {
    return {&l.w, y.data(), l.bias.empty() ? nullptr : l.bias.data()};
  }
  template <TransformerCache C, class Hooks>
  Status attend_many(int layer, Index n, Pos first, C& cache, const ForwardCall& call, Hooks& hooks);
  /// Whether the cache itself attends for these tokens: no evidence is wanted, and they are too few to be worth expanding
  /// what is stored.
  template <class C>
  bool few(const C& cache, int layer, Index n, const ForwardCall& call) const {
    constexpr Index few_queries = 256;  // of a KV head
    if constexpr (AttendsTokens<C, E>)
      return !call.prompt && !compact(cache) && n * model_.shape().group() <= few_queries &&
             cache.size(layer, 0) > 0;
    else return false;
  }
  template <TransformerCache C, class Hooks>
  Status attend_few(int layer, Index n, Pos first, C& cache, Hooks& hooks);
  template <TransformerCache C, class Hooks>
  Status attend_one(int layer, Pos position, C& cache, const ForwardCall& call, Hooks& hooks);
  template <class C>
  Clock clock(const C& cache, int layer, const ForwardCall& call, Phase phase) const {
    Clock now;
    now.phase = phase;
    now.step = phase == Phase::decode ? call.step : 0;
    now.last = call.last_chunk;
    for (int h = 0; h < model_.shape().kv_heads; ++h)
      now.size = std::max(now.size, Index(cache.size(layer, h)));
    return now;
  }
  /// Shows the hooks what goes into the attention; the keys as the cache gets them.
  template <class Hooks>
  void show([[maybe_unused]] Hooks& hooks, [[maybe_unused]] int layer, [[maybe_unused]] Index n,
            [[maybe_unused]] Pos first, [[maybe_unused]] const float* q) const {
    [[maybe_unused]] const Shape& s = model_.shape();
    [[maybe_unused]] const auto all = [n](const float* x, int heads, int d) {
      return std::span<const float>(x, std::size_t(n) * std::size_t(heads) * std::size_t(d));
    };
    if constexpr (requires { hooks.on_queries(layer, all(q, 1, 1), first); })
      hooks.on_queries(layer, all(q, s.q_heads, s.dim_k), first);
    if constexpr (requires { hooks.on_keys(layer, all(q, 1, 1), first); })
      hooks.on_keys(layer, all(k_.data(), s.kv_heads, s.dim_k), first);
    if constexpr (requires { hooks.on_values(layer, all(q, 1, 1), first); })
      hooks.on_values(layer, all(v_.data(), s.kv_heads, s.dim_v), first);
  }
  template <class C>
  static bool compact(const C& cache) {
    if constexpr (requires { cache.compact(); }) return cache.compact();
    else return false;
  }

  const Model& model_;
  E& executor_;
  Matmul matmul_;
  PrefillAttention attention_;
  RopeAngles angles_;
  Index room_ = 0;                          // tokens that the rows below have room for
  detail::Floats x_, h_, q_, k_, v_, out_;  // [n, width] (x, h), [n, heads, d]
  detail::Floats gate_, up_;                // [n, ffn_width]
  detail::Floats turned_q_, turned_k_;      // q and k turned by slot, for compact caches
  detail::Floats logits_;
  std::vector<detail::Floats> past_k_, past_v_, past_bias_;  // [kv_heads] of [entries, d]
  std::vector<PastRows> past_;                               // [kv_heads]
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/reference/detail/transformer.ipp>
