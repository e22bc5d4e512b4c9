#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/budget/layer/softmax_of_variance.hpp>
#include <kvist/policy/dispose/merge.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/attention_variance.hpp>

#include <array>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// How D2O weighs merged tokens.
enum class D2OWeights : std::uint8_t { code, normalised };
template <>
struct EnumNames<D2OWeights> {
  static constexpr std::array<const char*, 2> names{"code", "normalised"};
};

struct D2OOptions {
  float alpha = 0.5f, beta = 0.5f;  // the official code's arguments; a comment there mentions 0.3 and 0.7
  Index heavy = -1, recent = -1;    // README of the official code: equal shares
  Index sinks = 4;                  // hard-coded there
  D2OWeights weights = D2OWeights::code;
  Total total = Total::exact;
};

/// Guards the first entries and the newest, whose count follows each layer's budget in the proportion of recent to heavy.
struct SinksAndRecentPart {
  static constexpr Role role = Role::guard;
  Index sinks = 4, heavy = -1, recent = -1;
  double recent_share() const {
    return heavy >= 0 && recent >= 0 && heavy + recent > 0 ? double(recent) / (double(heavy) + recent) : 0.5;
  }
  Guards resolve(Index budget) const {
    if (recent >= 0 && heavy < 0) return {sinks, recent};
    if (heavy >= 0 && recent < 0) return {sinks, std::max<Index>(0, budget - heavy)};
    return {sinks, Index(double(budget) * recent_share())};
  }
  Status validate(Index budget) const {
    const long long sum = (long long)heavy + recent;
    if (heavy >= 0 && recent >= 0 && sum != budget)
      return Error{Errc::bad_budget, "heavy and recent must add up to the budget", budget, sum};
    return Done{};
  }
};
static_assert(Guard<SinksAndRecentPart>);

/// Layers with flat attention keep more; what H2O would evict is folded into the most similar entry that stays, where their
/// keys are alike enough: the similarity has to reach a threshold that follows its mean.
///
/// From the first decode step on, at every step: the prompt stays whole until all layers have been seen. Layers 0, 1 and the
/// last are never cut by the official code (skip_layers=0/1/29 of 30).
///
/// The official code averages the gate over heads by the rank of the evicted tokens, although each head evicts others; here
/// every head decides for itself. Of the 3,699 entries that nine heads of layer 11 of a recorded prompt evict at first, 1,303
/// pass one of the two gates and not the other; evicted entries, targets and similarities are the same, and with one head
/// all of it is. One KV head with several query heads sums their scores; the code repeats keys instead. weights=code divides
/// the sum of rows, weighted by raw cosines, by their number, so that merged rows shrink; weights=normalised adds up to 1, as
/// the paper is described. Merged entries weigh as one, and evicted scores are lost, as in the code. Keys are averaged as they
/// are rotated.
/// Source: Wan et al. 2025, arXiv 2406.13035; AIoT-MLSys-Lab/D2O, LLM_merge_new.
struct D2O {
  static constexpr MethodInfo info{
      "D2O",
      "D2O: Dynamic Discriminative Operations for Efficient Long-Context Inference of Large Language Models",
      "Wan et al. 2025, arXiv 2406.13035",
      "AttentionVariance + SoftmaxOfVariance + SinksAndRecentPart + TopK + Merge (NearestKept, "
      "MovingThreshold, "
      "BySimilarity) + EverySteps",
      "column sums of the prompt, probabilities of each step",
      "drops, blends",
      Fidelity::adapted,
      "each KV head has a threshold of its own; query groups are summed"};
  using Options = D2OOptions;
  using Folding = Merge<NearestKept, MovingThreshold, BySimilarity, NewCentroid, NoMass>;
  using Type = Policy<AttentionVariance, SoftmaxOfVariance, SinksAndRecentPart, Folding, EverySteps>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("alpha", o.alpha, "of the last threshold in the next");
    v("beta", o.beta, "of the mean similarity in the next threshold");
    v("heavy", o.heavy,
      "entries chosen by attention, sinks included; -1: half. With recent: the budget, as a proportion");
    v("recent", o.recent, "newest entries that stay; -1: half");
    v("sinks", o.sinks, "first entries that stay");
    v("weights", o.weights,
      "of folded rows: code (raw cosines) or normalised (exponentials that add up to 1)");
    v("total", o.total, "exact, or official (parts rounded down layer by layer)");
  }
  static Result<Type> make(const Options& o) {
    if (o.heavy < -1 || o.recent < -1 || o.sinks < 0)
      return Error{Errc::bad_option, "heavy, recent (-1: by half) and sinks count entries", -1,
                   std::min({o.heavy, o.recent, o.sinks})};
    for (const float x : {o.alpha, o.beta})
      if (!(x >= 0 && x <= 1)) return Error{Errc::bad_option, "alpha and beta are 0 to 1", 1, (long long)x};
    const SinksAndRecentPart guard{o.sinks, o.heavy, o.recent};
    SoftmaxOfVariance layers;
    layers.recent_share = guard.recent_share();
    layers.exact = o.total == Total::exact;
    const BySimilarity weights{o.weights == D2OWeights::code ? BySimilarity::Form::raw
                                                             : BySimilarity::Form::exponential};
    return Type(AttentionVariance{}, layers, guard, Folding{{}, {o.alpha, o.beta}, weights, {}, {}},
                EverySteps{1, false});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
