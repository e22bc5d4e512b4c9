#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/budget/layer/cascade.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/window_mean_variance.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct CAKEOptions {
  Index window = 32;
  double gamma = 200;
  double tau1 = 1, tau2 = 1;  // the code's fall-back; per model 0.4 .. 1.9 (llama3.1-8b: 1.6 and 0.4)
  bool cascade = true;
  Total total = Total::exact;
};

/// After each layer of the prompt: shares the budget over the layers seen so far by how dispersed and how
/// unstable their attention is, cuts earlier layers again to their new share, and keeps the entries with the
/// largest mean + gamma * variance of the last queries' attention. Each decode step keeps a layer at its
/// share by the newest query's attention.
///
/// The budget counts the window, per layer on average. cascade=no shares once, after the last layer; the kept
/// sets are the same where shares only fall. Where one rises, its layer starts below it and grows to it while
/// decoding. Kept rows ascend; the official code leaves them in score order and pools over that order while
/// decoding, so that decode scores differ. It also keeps a prompt whole up to budget + window entries; here
/// the budget holds from the first call. total=official shares out as its code does, once, even where a layer
/// then gets more than it can hold.
///
/// It has no merge=: an earlier layer is cut again from its scores alone, when the keys that a merge would average are
/// no longer at hand.
/// Source: Qin et al. 2025, arXiv 2503.12491; official code antgroup/cakekv, cake/cake_cache.py.
struct CAKE {
  static constexpr MethodInfo info{
      "CAKE",
      "CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences",
      "Qin et al. 2025, arXiv 2503.12491",
      "WindowMeanVariance + Cascade + KeepEnds + TopK + EveryStep",
      "queries of the prompt's last window, probabilities of each step",
      "drops",
      Fidelity::adapted,
      "rows ascend, so decode steps pool over neighbours; the budget holds for prompts just above it, too"};
  using Options = CAKEOptions;
  using Type = Policy<WindowMeanVariance, Cascade, KeepEnds, EveryStep>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "last queries that vote; as many newest entries stay");
    v("gamma", o.gamma, "weight of the variance against the mean");
    v("tau1", o.tau1, "a layer's entropy counts to the power of 1/tau1");
    v("tau2", o.tau2, "a layer's variance counts to the power of 1/tau2");
    v("cascade", o.cascade, "share after each layer (yes), or once after the last (no)");
    v("total", o.total, "exact, or official: shares as the official code rounds them");
  }
  static Result<Type> make(const Options& o) {
    if (!(o.tau1 > 0) || !(o.tau2 > 0))
      return Error{Errc::bad_option, "tau1 and tau2 are temperatures and must be positive"};
    return Type(WindowMeanVariance{o.window, float(o.gamma), 5},
                Cascade{o.tau1, o.tau2, o.cascade, o.total == Total::exact}, KeepEnds{0, o.window});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
