#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/dispose/spread_values.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct CaMOptions {
  Index targets = 32;  // decode path of the official code and kvpress; its streaming path: 16
  bool deterministic = false;
  Index sinks = -1, recent = -1;  // README of the official code: equal shares
  std::uint64_t seed = 1;
};

/// Guards the first and the newest entries, half of the budget each where no counts are given.
struct HalfSinksHalfRecent {
  static constexpr Role role = Role::guard;
  Index sinks = -1, recent = -1;
  Guards resolve(Index budget) const {
    const Index first = sinks >= 0 ? sinks : std::max<Index>(0, recent >= 0 ? budget - recent : budget / 2);
    return {first, recent >= 0 ? recent : std::max<Index>(0, budget - first)};
  }
};
static_assert(Guard<HalfSinksHalfRecent>);

/// Keeps the first and the newest entries; when one leaves, its value is spread over the next entries, with a probability that
/// is its accumulated attention against theirs. Keys never change.
///
/// The official code has three variants that differ in scores and denominators. In decode this is its streaming path
/// (accumulated attention against the targets' mean); where a prompt is cut its prefill path (against the largest that stays),
/// with accumulated instead of mean attention. As many targets as its decode path and kvpress take. There an entry is spread
/// one step before it disappears and each target gets 1/32 even where there are fewer; here it is spread when it leaves, in
/// equal parts of what there is.
/// Source: Zhang et al. 2024, ICML, "CaM: Cache Merging for Memory-efficient LLMs Inference"; zyxxmu/cam.
struct CaM {
  static constexpr MethodInfo info{
      "CaM",
      "CaM: Cache Merging for Memory-efficient LLMs Inference",
      "Zhang et al. 2024, ICML",
      "AccumulatedAttention + HalfSinksHalfRecent + TopK + SpreadValues + EveryStep",
      "column sums of the prompt, probabilities of each step, values",
      "drops, blends",
      Fidelity::adapted,
      "of the code's three paths: prefill for prompts, streaming for decode; values are spread when their "
      "entry leaves"};
  using Options = CaMOptions;
  using Type = Policy<AccumulatedAttention, HalfSinksHalfRecent, SpreadValues, EveryStep>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("targets", o.targets, "entries that a value is spread over");
    v("deterministic", o.deterministic, "add the mean over draws instead of drawing");
    v("sinks", o.sinks, "first entries that stay; -1: what recent leaves, or half of the budget");
    v("recent", o.recent, "newest entries that stay; -1: what sinks leave, or half of the budget");
    v("seed", o.seed, "of the draws");
  }
  static Result<Type> make(const Options& o) {
    if (o.targets < 1) return Error{Errc::bad_option, "targets counts entries, at least 1", 1, o.targets};
    if (o.sinks < -1 || o.recent < -1)
      return Error{Errc::bad_option, "sinks and recent count entries (-1: by the budget)", -1,
                   std::min(o.sinks, o.recent)};
    SpreadValues spread;
    spread.targets = o.targets;
    spread.deterministic = o.deterministic;
    spread.seed = o.seed;
    return Type(AccumulatedAttention{}, HalfSinksHalfRecent{o.sinks, o.recent}, spread);
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
