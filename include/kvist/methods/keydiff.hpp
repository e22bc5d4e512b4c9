#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/key_diversity.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct KeyDiffOptions {};

/// Entries stay whose keys differ most from the mean key direction. After every call of the prompt: with a prompt in one
/// piece once, with chunks the block-wise form of the source (survivors and the new chunk compete).
///
/// Recent entries are not protected by themselves, as in the source.
/// Source: Park et al. 2025, arXiv 2504.15364; NVIDIA/kvpress, KeyDiffPress and BlockPress.
struct KeyDiff {
  static constexpr MethodInfo info{
      "KeyDiff",
      "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in "
      "Resource-Constrained Environments",
      "Park et al. 2025, arXiv 2504.15364",
      "KeyDiversity + TopK + PerChunk",
      "nothing but keys",
      "drops",
      Fidelity::exact,
      ""};
  using Options = KeyDiffOptions;
  using Type = Policy<KeyDiversity, PerChunk>;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<Type> make(const Options&) { return Type(); }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
