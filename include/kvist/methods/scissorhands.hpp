#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/top_k_batch.hpp>
#include <kvist/policy/signal/hit_history.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct ScissorhandsOptions {
  Index history = 400, recent = 10;  // cold-compress, which attributes both to the paper
  double threshold = 1;              // times 1/n
  Index batch = 1;                   // cold-compress; the paper drops half of the budget at once
};

/// When the cache is over its budget, the entries that were most often unimportant in the recent history leave, in a batch;
/// the newest stay.
///
/// There is no official code; this follows the reading of AnswerDotAI/cold-compress (history of 400 rows, the prompt as one
/// row) with two differences: of equally often missed entries the newer one leaves (cold-compress: the lower slot, and slots
/// are reused), and nothing leaves before the budget is exceeded. The paper's larger budgets for later layers are left out.
/// Source: Liu et al. 2023, arXiv 2305.17118.
struct Scissorhands {
  static constexpr MethodInfo info{
      "Scissorhands",
      "Scissorhands: Exploiting the Persistence of Importance Hypothesis for LLM KV "
      "Cache Compression at Test Time",
      "Liu et al. 2023, arXiv 2305.17118",
      "HitHistory + KeepEnds + TopKBatch + EveryStep",
      "column sums of the prompt, probabilities of each step",
      "drops",
      Fidelity::simplified,
      "no official code; the paper's growing layer budgets are left out"};
  using Options = ScissorhandsOptions;
  using Type = Policy<HitHistory, KeepEnds, TopKBatch, EveryStep>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("history", o.history, "rows remembered");
    v("recent", o.recent, "newest entries that stay");
    v("threshold", o.threshold, "a hit is a probability of at least this over the entries held");
    v("batch", o.batch, "entries that an event drops at least");
  }
  static Result<Type> make(const Options& o) {
    if (o.history < 1 || o.batch < 1)
      return Error{Errc::bad_option, "history and batch are at least 1", 1, std::min(o.history, o.batch)};
    return Type(HitHistory{o.history, o.threshold}, KeepEnds{0, o.recent}, TopKBatch{o.batch});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
