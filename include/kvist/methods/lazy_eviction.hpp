#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/recurrence_interval.hpp>

#include <array>

namespace kvist::inline KVIST_ABI {
namespace methods {

template <>
struct EnumNames<RecurrenceForm> {
  static constexpr std::array<const char*, 2> names{"code", "paper"};
};

struct LazyEvictionOptions {
  Index window = 27;    // the authors' scripts: llama 27 / 52 / 95, qwen 101 / 175 / 363 by task
  double alpha = 1e-4;  // class default and qwen; their llama runs: 5e-4
  RecurrenceForm form = RecurrenceForm::code;
  Reduce reduce = Reduce::max;
};

/// During long generation: notes when each entry was last attended to strongly and its longest gap between
/// two such steps; every `window` steps, where more than the budget is held, keeps the newest `window`
/// entries and those whose silence is short against their own gap. The prompt stays whole until the first
/// such step: a generation of fewer than `window` steps is never cut, whatever its budget (schedule=every:W with a
/// smaller W, or every_step, evicts sooner).
///
/// form=code follows the published code, form=paper the formula of the paper; they rank differently
/// (RecurrenceInterval). The source repeats keys to all query heads; here one record per KV head, hit by the
/// strongest query of its group (reduce=max; mean and sum of the group's probabilities are the alternatives).
/// A window of the whole budget is a plain sliding window; the source's code fails there.
/// Source: Zhang et al. 2025, arXiv 2506.15969; code as copied in WeianMao/triattention, LazyEviction/model.
struct LazyEviction {
  static constexpr MethodInfo info{
      "LazyEviction",
      "LazyEviction: Lagged KV Eviction with Attention Pattern Observation for Efficient Long Reasoning",
      "Zhang et al. 2025, arXiv 2506.15969",
      "RecurrenceInterval + KeepEnds + TopK + EverySteps",
      "probabilities of each step",
      "drops",
      Fidelity::adapted,
      "grouped heads share one record, hit by their strongest query"};
  using Options = LazyEvictionOptions;
  using Type = Policy<RecurrenceInterval, KeepEnds, EverySteps>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "steps between evictions; as many newest entries stay");
    v("alpha", o.alpha, "probability from which an entry counts as attended to");
    v("form", o.form, "of the score: code or paper");
    v("reduce", o.reduce, "over the query group: mean, max or sum");
  }
  static Result<Type> make(const Options& o) {
    if (o.window < 1)
      return Error{Errc::bad_option, "the window counts steps and holds at least one", 1, o.window};
    return Type(RecurrenceInterval{o.alpha, o.form, o.reduce}, KeepEnds{0, o.window},
                EverySteps{o.window, false});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
