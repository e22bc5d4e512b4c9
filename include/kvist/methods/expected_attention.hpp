#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/expected_attention.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct ExpectedAttentionOptions {
  Index future = 512;
  Index sinks = 4;
  double epsilon = 0;  // of the authors' library
};

/// Once after the prompt: keeps the first entries and those that coming queries are expected to attend to, by
/// the statistics of the prompt's queries, times the length of their values.
///
/// As kvpress does it, with covariance and value norm: the covariance is turned by the mean rotation on both
/// sides, so that what the spread of positions adds is left out. epsilon is added to probabilities of about 1
/// / entries, so its weight grows with the prompt.
/// Source: Devoto et al. 2025, arXiv 2510.00636; NVIDIA/kvpress (the authors' library),
/// ExpectedAttentionPress.
struct ExpectedAttentionEviction {
  static constexpr MethodInfo info{
      "ExpectedAttention",
      "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
      "Devoto et al. 2025, arXiv 2510.00636",
      "ExpectedAttention + KeepEnds + TopK + AfterPrefill",
      "all queries of the prompt, the rotary table, keys and values",
      "drops",
      Fidelity::exact,
      ""};
  using Options = ExpectedAttentionOptions;
  using Type = Policy<ExpectedAttention, KeepEnds>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("future", o.future, "coming positions that are averaged over");
    v("sinks", o.sinks, "first entries that stay; their queries do not count");
    v("epsilon", o.epsilon, "added to the expected probabilities before they are weighed by values");
  }
  static Result<Type> make(const Options& o) {
    return Type(ExpectedAttention{o.future, o.sinks, float(o.epsilon)}, KeepEnds{o.sinks, 0});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
