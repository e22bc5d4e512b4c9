#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/attention_and_redundancy.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct RKVOptions {
  double lambda = 0.07;
  Index window = 8;
  int kernel = 7;
  double similarity = 0.5;
  Index interval = 128;  // tokens between compressions while decoding
};

/// After the prompt and then every 128 tokens: keeps the newest entries and, of the others, those that the
/// last queries attend to and that are not alike to other keys.
///
/// As in the official code (retain mode "last"): the softmax of the attention runs over the entries before
/// the window alone, and where a key resembles no other, the first entry's similarity to it is left out
/// (KeyRedundancy). At lambda 0.07 redundancy decides nearly alone, since both terms are about 1 / entries.
/// Source: Cai et al. 2025, arXiv 2505.24133 (R-KV); official code Zefan-Cai/R-KV, rkv/compression/r1_kv.py.
struct RKV {
  static constexpr MethodInfo info{"RKV",
                                   "R-KV: Redundancy-aware KV Cache Compression for Reasoning Models",
                                   "Cai et al. 2025, arXiv 2505.24133",
                                   "AttentionAndRedundancy + KeepEnds + TopK + EverySteps",
                                   "queries of the prompt's last window and of each step",
                                   "drops",
                                   Fidelity::exact,
                                   ""};
  using Options = RKVOptions;
  using Type = Policy<AttentionAndRedundancy, KeepEnds, EverySteps>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("lambda", o.lambda, "weight of attention against redundancy, 0 to 1");
    v("window", o.window, "last queries that vote; as many newest entries stay");
    v("kernel", o.kernel, "width of the maximum over neighbours, odd");
    v("similarity", o.similarity, "cosine from which the newest like key is spared");
    v("interval", o.interval, "decode steps between compressions");
  }
  static Result<Type> make(const Options& o) {
    if (o.interval < 1)
      return Error{Errc::bad_option, "the interval counts steps and holds at least one", 1, o.interval};
    return Type(AttentionAndRedundancy{float(o.lambda), o.window, o.kernel, {float(o.similarity), true}},
                KeepEnds{0, o.window}, EverySteps{o.interval, true});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
