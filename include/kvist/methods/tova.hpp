#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/last_query.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct TOVAOptions {};

/// After the prompt and after every step, the entries that the newest query attends to least leave; one choice for all heads
/// of the layer, from the mean over its query heads.
///
/// The newest entry has no protection and may leave at once, as in the official code; kvpress forces it in (recent=1).
/// Source: Oren et al. 2024, arXiv 2401.06104; official code schwartz-lab-NLP/TOVA, src/tova_cache.py.
struct TOVA {
  static constexpr MethodInfo info{"TOVA",
                                   "Transformers are Multi-State RNNs",
                                   "Oren et al. 2024, arXiv 2401.06104",
                                   "LastQuery (grain layer) + TopK + EveryStep",
                                   "the newest query or its probabilities",
                                   "drops",
                                   Fidelity::exact,
                                   ""};
  using Options = TOVAOptions;
  using Type = Policy<LastQuery, EveryStep>;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<Type> make(const Options&) { return Type(); }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
