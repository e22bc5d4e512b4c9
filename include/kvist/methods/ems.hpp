#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/dispose/merge.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/global_local_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct EMSOptions {
  Index window = 32;
  float threshold = 0.1f;
  double merged = 1;
};

/// Once after the prompt: entries are ranked by the larger of global and local attention; the best stay as centres, the next
/// ones are folded into the centre that is most like them in key and value, where they are alike enough, and the rest go.
///
/// The source is incomplete in what was at hand (its abstract and reviews): the ranking is published, the sizes of the tiers,
/// the threshold and the weights are not and are chosen here: as many to merge as stay (merged=1), product of cosines at
/// least 0.1, weights by score. Each cosine is cut at 0, or opposite rows would count as alike. Rotated keys are averaged as
/// directions and the centre keeps its norm. The source goes on while decoding; this one decides after prompts.
/// Source: Li et al. 2024, arXiv 2412.08521.
struct EMS {
  static constexpr MethodInfo info{
      "EMS",
      "EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache Compression Based on Global-Local "
      "Importance",
      "Li et al. 2024, arXiv 2412.08521",
      "GlobalLocalAttention + TopK + Merge (NearestKept by key and value, BestLosers, Threshold, ByScore, "
      "UpdatedAnchor) + "
      "AfterPrefill",
      "column sums and queries of the prompt's last window, values",
      "drops, blends",
      Fidelity::simplified,
      "tiers, threshold and weights are not published and chosen here; after prompts only"};
  using Options = EMSOptions;
  using Folding = Merge<NearestKept, BothGates<BestLosers, Threshold>, ByScore, UpdatedAnchor, NoMass>;
  using Type = Policy<GlobalLocalAttention, KeepEnds, Folding>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "last queries of the local attention");
    v("threshold", o.threshold, "product of the cosines of keys and values from which a loser is merged");
    v("merged", o.merged, "losers that may be merged, as a multiple of the budget");
  }
  static Result<Type> make(const Options& o) {
    if (!(o.merged >= 0)) return Error{Errc::bad_option, "merged is a multiple of the budget, 0 or more"};
    return Type(GlobalLocalAttention{o.window}, KeepEnds{},
                Folding{{NearestKept::By::key_and_value}, {{o.merged}, {o.threshold}}, {}, {}, {}});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
