#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/lag_relative.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct LagKVOptions {
  Index sinks = 4;
  Index lag = 128;
};

/// Once after the prompt: keeps the first entries, the newest one to two partitions, and of each older
/// partition the entries whose keys and values are most uneven against the range of the partition after it.
///
/// As kvpress defines it. Where the budget is smaller than sinks and newest partitions, kvpress leaves the
/// choice to a tie; here the sinks and the newest entries stay. Partitions of a head are cut alike, since
/// scores are ranks.
/// Source: Liang et al. 2025, arXiv 2504.04704; NVIDIA/kvpress, LagKVPress.
struct LagKV {
  static constexpr MethodInfo info{
      "LagKV",
      "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important",
      "Liang et al. 2025, arXiv 2504.04704",
      "LagRelative + KeepEnds + TopK + AfterPrefill",
      "keys and values",
      "drops",
      Fidelity::adapted,
      "ties among the newest entries go to the newest"};
  using Options = LagKVOptions;
  using Type = Policy<LagRelative, KeepEnds>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("sinks", o.sinks, "first entries that stay; partitions begin behind them");
    v("lag", o.lag, "entries in a partition");
  }
  static Result<Type> make(const Options& o) {
    return Type(LagRelative{o.sinks, o.lag}, KeepEnds{o.sinks, 0});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
