#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/dispose/match/runs.hpp>
#include <kvist/policy/dispose/merge.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/choose_none.hpp>
#include <kvist/policy/signal/accumulated_attention.hpp>

#include <array>

namespace kvist::inline KVIST_ABI {
namespace methods {

template <>
struct EnumNames<ChosenMass::Kind> {
  static constexpr std::array<const char*, 2> names{"none", "count"};
};

struct KVMergerOptions {
  float threshold = 0;  // the paper's experiments: 0.75; a figure caption: 0.8
  float sigma = 5;      // best of the paper's ablation
  double recent = -1, top = -1;
  ChosenMass::Kind mass = ChosenMass::Kind::none;
};

/// Once after the prompt: runs of neighbouring entries with alike keys become one entry each, a Gaussian-weighted mean around
/// the run's most attended member; the newest and the most attended entries stay alone.
///
/// The method has no budget: its threshold decides how many entries stay. With a budget the threshold is bisected to it, one
/// for all heads of a layer, so that the layer's total is met; heads keep as many as their keys ask for. The protected
/// shares are the paper's, of the entries: 0.17 newest and 0.12 most attended where a threshold decides (its 50 % setting);
/// with a budget 0.23 and 0.06 of that (what 0.08 and 0.02 are of its 35 % setting). Shares give way to a budget that leaves
/// too little to merge; counts that do not fit in it are an Error.
///
/// No official code exists and the paper's text was not at hand: the rule is as reviews quote it. Keys are averaged as they
/// are rotated; neighbours differ by a few steps of rotation, which fast channels feel. The paper states no weight for merged
/// entries (mass=none); mass=count adds log n, which keeps their mass. The paper's first two and last layer stay whole
/// (skip_layers says so). Merging while decoding is not described: this one merges after prompts. Attention is summed over
/// a query group.
/// Source: Wang et al. 2024, arXiv 2407.08454.
struct KVMerger {
  static constexpr MethodInfo info{
      "KVMerger",
      "Model Tells You Where to Merge: Adaptive KV Cache Merging for LLMs on Long-Context Tasks",
      "Wang et al. 2024, arXiv 2407.08454",
      "AccumulatedAttention + ChooseNone + Merge (AdjacentRuns, Gaussian, NewCentroid) + AfterPrefill",
      "column sums of the prompt",
      "drops, blends",
      Fidelity::adapted,
      "from published descriptions, as no code exists; a budget bisects the threshold, layer by layer"};
  using Options = KVMergerOptions;
  using Type =
      Policy<AccumulatedAttention, ChooseNone, Merge<AdjacentRuns, Always, Gaussian, NewCentroid, ChosenMass>>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("threshold", o.threshold,
      "cosine of neighbouring keys above which they join; 0: as low as the budget asks");
    v("sigma", o.sigma, "of the Gaussian weights; 0: mean distance to the pivot, -1: the printed rule");
    v("recent", o.recent,
      "newest entries that stay alone: a count, below 1 a share of the head; -1: as the paper");
    v("top", o.top, "most attended entries that stay alone, likewise");
    v("mass", o.mass, "what a merged entry weighs: none (as one), count (log n)");
  }
  static Result<Type> make(const Options& o) {
    if (o.threshold < -1 || o.threshold > 1)
      return Error{Errc::bad_option, "threshold is a cosine, -1 to 1 (0: by the budget)", 1,
                   (long long)o.threshold};
    if (o.sigma < 0 && o.sigma != -1)
      return Error{Errc::bad_option, "sigma is positive, or 0 or -1 for a rule", 0, (long long)o.sigma};
    for (const double x : {o.recent, o.top})
      if ((x < 0 && x != -1) || x > 1 << 29)
        return Error{Errc::bad_option, "recent and top are counts, or shares below 1 (-1: as the paper)", 0,
                     (long long)x};
    AdjacentRuns runs;
    runs.by_budget = o.threshold == 0;
    runs.threshold = o.threshold;
    runs.of_budget = runs.by_budget && o.recent == -1 && o.top == -1;
    runs.recent.value = o.recent == -1 ? (runs.by_budget ? 0.23 : 0.17) : o.recent;
    runs.top.value = o.top == -1 ? (runs.by_budget ? 0.06 : 0.12) : o.top;
    Gaussian weights;
    if (o.sigma > 0) weights.sigma = o.sigma;
    else weights.rule = o.sigma == 0 ? Gaussian::Rule::mean_distance : Gaussian::Rule::fixed_point;
    return Type(AccumulatedAttention{}, ChooseNone{},
                Merge<AdjacentRuns, Always, Gaussian, NewCentroid, ChosenMass>{
                    runs, {}, weights, {}, ChosenMass{o.mass}});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
