#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct H2OOptions {
  int heavy = -1,
      recent = -1;  // entries; -1: half of the budget each (README of the official code: equal ratios)
  bool normalise = false;
};

/// Guards the newest entries, and checks that heavy and recent fill the budget where both are given.
struct HeavyAndRecent {
  static constexpr Role role = Role::guard;
  Index heavy = -1, recent = -1;
  Guards resolve(Index budget) const {
    if (recent >= 0) return {0, recent};
    return {0, budget - (heavy >= 0 ? heavy : budget / 2)};
  }
  Status validate(Index budget) const {
    const long long sum = (long long)heavy + recent;
    if (heavy >= 0 && recent >= 0 && sum != budget)
      return Error{Errc::bad_budget, "heavy and recent must add up to the budget", budget, sum};
    if (heavy > budget || recent > budget)
      return Error{Errc::bad_budget, "heavy and recent must each fit in the budget", budget,
                   std::max(heavy, recent)};
    return Done{};
  }
};
static_assert(Guard<HeavyAndRecent>);

/// Per head, keeps the newest entries and the older ones that have received most attention so far; drops at every step.
///
/// This is the "real drop" form of the official code (utils_real_drop): an evicted entry never returns, its accumulated
/// attention goes with it. A KV head with several query heads uses the sum over its group, which the paper, written for
/// one query head per KV head, does not define.
/// Source: Zhang et al. 2023, arXiv 2306.14048; official code FMInference/H2O, h2o_hf/utils_real_drop.
struct H2O {
  static constexpr MethodInfo info{
      "H2O",
      "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
      "Zhang et al. 2023, arXiv 2306.14048",
      "AccumulatedAttention + HeavyAndRecent + TopK + EveryStep",
      "column sums of the prompt, probabilities of each step",
      "drops",
      Fidelity::adapted,
      "grouped heads use the sum over the group"};
  using Options = H2OOptions;
  using Type = Policy<AccumulatedAttention, HeavyAndRecent, EveryStep>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("heavy", o.heavy, "entries chosen by attention; -1: half of the budget");
    v("recent", o.recent, "newest entries that stay; -1: the rest of the budget");
    v("normalise", o.normalise, "divide by the number of queries that could see the entry");
  }
  static Result<Type> make(const Options& o) {
    if (o.heavy < -1 || o.recent < -1)
      return Error{Errc::bad_option, "heavy and recent count entries (-1: by half)", -1,
                   std::min(o.heavy, o.recent)};
    return Type(AccumulatedAttention{o.normalise}, HeavyAndRecent{o.heavy, o.recent});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
