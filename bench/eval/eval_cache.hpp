#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <kvist/cache/cache.hpp>
#include <kvist/policy/any_policy.hpp>
#include <kvist/reference/transformer_cache.hpp>
#include <kvist/storage/any_store.hpp>

#include <functional>
#include <span>
#include <utility>

extern template class kvist::Cache<kvist::AnyPolicy, kvist::AnyStore>;  // compiled in eval_cache.cpp

namespace kvist_eval {

using AnyCache = kvist::Cache<kvist::AnyPolicy, kvist::AnyStore>;

/// What the tool puts between the transformer and a cache: it sets the budget, may ask for more evidence than
/// the policy wants and look at it, and may keep the policy from deciding.
class EvalCache {
 public:
  using OnEvidence = std::function<void(int layer, std::span<const kvist::Evidence>)>;

  /// Passes everything on, with the budget.
  EvalCache(AnyCache& cache, kvist::Index budget) : cache_(cache), budget_(budget), wants_(cache.wants()) {}
  /// Shows the evidence of prompt calls to `look` instead of the policy.
  EvalCache(AnyCache& cache, const kvist::Wants& wants, OnEvidence look)
      : cache_(cache), wants_(wants), look_(std::move(look)) {}

  const kvist::Shape& shape() const { return cache_.shape(); }
  kvist::Wants wants() const { return wants_; }
  kvist::KeyForm form() const { return cache_.form(); }
  bool compact() const { return cache_.compact(); }
  kvist::Pos next_position() const { return cache_.next_position(); }
  kvist::Index size(int layer, int head) const { return cache_.size(layer, head); }
  std::span<const float> bias(int layer, int head) const { return cache_.bias(layer, head); }
  void read(int layer, int head, kvist::Index first, kvist::Index n, float* k, float* v) const {
    cache_.read(layer, head, first, n, k, v);
  }
  kvist::Status append(int layer, kvist::Index n, const float* k, const float* v, kvist::Pos first) {
    return cache_.append(layer, n, k, v, first);
  }
  kvist::Status observe(int layer, std::span<const kvist::Evidence> seen, kvist::Clock now) {
    if (look_) {
      look_(layer, seen);
      return kvist::Done{};
    }
    now.budget = budget_;
    const Stopwatch watch;
    const kvist::Status done = cache_.observe(layer, seen, now);
    seconds_ += watch.seconds();
    return done;
  }
  template <kvist::Executor E>
  kvist::Status attend(int layer, const float* q, float scale, float* out, E& executor) {
    return cache_.attend(layer, q, scale, out, executor);
  }
  template <kvist::Executor E>
  kvist::Status attend_tokens(int layer, kvist::Index n, const float* q, const float* k, const float* v,
                              kvist::Pos first, const kvist::LayerAttention& how, float* out, E& executor) {
    return cache_.attend_tokens(layer, n, q, k, v, first, how, out, executor);
  }
  kvist::Status step(int layer, kvist::Clock now) {
    now.budget = budget_;
    const Stopwatch watch;
    const kvist::Status done = cache_.step(layer, now);
    seconds_ += watch.seconds();
    return done;
  }

  double seconds() const { return seconds_; }  ///< that the policy took

 private:
  AnyCache& cache_;
  kvist::Index budget_ = 0;
  kvist::Wants wants_;
  OnEvidence look_;
  double seconds_ = 0;
};
static_assert(kvist::TransformerCache<EvalCache>);

}  // namespace kvist_eval
