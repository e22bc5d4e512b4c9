#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/key_norm.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct KeyNormOptions {};

/// Once after the prompt: entries with the shortest keys stay.
///
/// Nothing is protected by itself, as in the source; `sinks` and `recent` protect the ends, which is worth more than the
/// score on small models. The paper leaves the first layers whole for language modelling: `skip_layers`.
/// Source: Devoto et al. 2024, arXiv 2406.11430; NVIDIA/kvpress, KnormPress.
struct KeyNormEviction {
  static constexpr MethodInfo info{"KeyNorm",
                                   "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
                                   "Devoto et al. 2024, arXiv 2406.11430",
                                   "KeyNorm + TopK + AfterPrefill",
                                   "nothing but keys",
                                   "drops",
                                   Fidelity::exact,
                                   ""};
  using Options = KeyNormOptions;
  using Type = Policy<KeyNorm>;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<Type> make(const Options&) { return Type(); }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
