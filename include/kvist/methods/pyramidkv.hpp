#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/budget/layer/ladder.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/window_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct PyramidKVOptions {
  Index window = 8;  // official runner; class default 64
  int beta = 20;
  int kernel = 7;                 // official runner; class default 5
  PoolMode pool = PoolMode::max;  // official runner; class default avg
  Reduce reduce = Reduce::mean;
  Total total = Total::exact;
};

/// SnapKV whose budget falls by equal steps from the first layer to the last.
///
/// total=official rounds the step down as the official code does, and so keeps more than the budget; total=exact meets it.
/// kvpress rounds a float series instead, which ends at T - window though it counts the window, and gives every layer the flat
/// budget where the last would be below the window.
/// Source: Cai et al. 2024, arXiv 2406.02069; official code Zefan-Cai/KVCache-Factory, pyramidkv_utils.py.
struct PyramidKV {
  static constexpr MethodInfo info{
      "PyramidKV",
      "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling",
      "Cai et al. 2024, arXiv 2406.02069",
      "WindowAttention (pooled) + Ladder + KeepEnds + TopK + AfterPrefill",
      "queries of the prompt's last window",
      "drops",
      Fidelity::adapted,
      "votes of a query group are reduced to its KV head; exact total by default"};
  using Options = PyramidKVOptions;
  using Type = Policy<WindowAttention, Ladder, KeepEnds>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("window", o.window, "last queries that vote; their entries stay");
    v("beta", o.beta, "the last layer gets 1/beta of the mean context budget");
    v("kernel", o.kernel, "pooling width, odd");
    v("pool", o.pool, "avg, max or none");
    v("reduce", o.reduce, "over the query group: mean, max or sum");
    v("total", o.total, "exact, or the official code's rounding");
  }
  static Result<Type> make(const Options& o) {
    if (o.beta < 1) return Error{Errc::bad_option, "beta divides the budget and is at least 1", 1, o.beta};
    return Type(WindowAttention{o.window, o.kernel, o.pool, o.reduce, false},
                Ladder{o.beta, o.total == Total::exact}, KeepEnds{0, o.window});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
