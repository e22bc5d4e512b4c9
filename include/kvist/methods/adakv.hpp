#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/budget/head/shared_heads.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/window_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct AdaKVOptions {
  Index window = 32;
  int kernel = 7;
  PoolMode pool = PoolMode::max;
  double floor = 0.2;  // official prediction script and kvpress; a README example has 0.5
  bool normalise = false;
  Reduce reduce = Reduce::mean;
  Total total = Total::exact;
};

/// SnapKV whose heads compete for the layer's budget: the best scores over all heads decide how many entries each keeps,
/// with a floor.
///
/// total=official rounds each head's budget by itself as the official code does; total=exact meets the layer's total. Heads
/// really hold different numbers of entries here; kvpress only masks them. It also counts the floor with the window, and so
/// protects nothing more where floor * budget is within it (here floor=0).
/// Source: Feng et al. 2024, arXiv 2407.11550; official code FFY0/AdaKV, adaptive_snapkv/monkeypatch/snapkv_utils.py.
struct AdaKV {
  static constexpr MethodInfo info{
      "AdaKV",
      "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM "
      "Inference",
      "Feng et al. 2024, arXiv 2407.11550",
      "WindowAttention (pooled) + SharedHeads + KeepEnds + TopK + AfterPrefill",
      "queries of the prompt's last window",
      "drops",
      Fidelity::adapted,
      "exact total by default"};
  using Options = AdaKVOptions;
  using Type = Policy<WindowAttention, SharedHeads, KeepEnds>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "last queries that vote; their entries stay");
    v("kernel", o.kernel, "pooling width, odd");
    v("pool", o.pool, "avg, max or none");
    v("floor", o.floor, "share of the even budget that every head is sure of");
    v("normalise", o.normalise, "weigh heads by how concentrated their scores are");
    v("reduce", o.reduce, "over the query group: mean, max or sum");
    v("total", o.total, "exact, or the official code's rounding");
  }
  static Result<Type> make(const Options& o) {
    if (!(o.floor >= 0 && o.floor <= 1))
      return Error{Errc::bad_option, "the floor is a share of the even budget, 0 to 1"};
    return Type(WindowAttention{o.window, o.kernel, o.pool, o.reduce, false},
                SharedHeads{o.floor, o.normalise, o.total == Total::exact}, KeepEnds{0, o.window});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
