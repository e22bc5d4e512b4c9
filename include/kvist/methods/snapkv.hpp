#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/window_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct SnapKVOptions {
  Index window = 32;              // official model init; class default 64
  int kernel = 5;                 // LongBench configurations: 7
  PoolMode pool = PoolMode::avg;  // LongBench configurations: max
  Reduce reduce = Reduce::mean;
  bool reduce_after = false;
};

/// Once after the prompt: the last `window` queries vote for the entries before them, pooled over neighbours; the winners
/// and the window stay.
///
/// The official code repeats keys to all query heads and compresses each; here the storage stays one per KV head and the
/// group's votes are reduced (mean), as in kvpress. Kept rows ascend; the official code leaves them in score order.
/// Source: Li et al. 2024, arXiv 2404.14469; official code FasterDecoding/SnapKV, snapkv_utils.py.
struct SnapKV {
  static constexpr MethodInfo info{"SnapKV",
                                   "SnapKV: LLM Knows What You are Looking for Before Generation",
                                   "Li et al. 2024, arXiv 2404.14469",
                                   "WindowAttention (pooled) + KeepEnds + TopK + AfterPrefill",
                                   "queries of the prompt's last window",
                                   "drops",
                                   Fidelity::adapted,
                                   "votes of a query group are reduced to its KV head"};
  using Options = SnapKVOptions;
  using Type = Policy<WindowAttention, KeepEnds>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "last queries that vote; their entries stay");
    v("kernel", o.kernel, "pooling width, odd");
    v("pool", o.pool, "avg, max or none");
    v("reduce", o.reduce, "over the query group: mean, max or sum");
    v("reduce_after", o.reduce_after, "pool before reducing");
  }
  static Result<Type> make(const Options& o) {
    return Type(WindowAttention{o.window, o.kernel, o.pool, o.reduce, o.reduce_after}, KeepEnds{0, o.window});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
