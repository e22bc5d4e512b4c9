#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/chunks.hpp>
#include <kvist/policy/signal/adapt/shared_by_heads.hpp>
#include <kvist/policy/signal/key_diversity.hpp>
#include <kvist/policy/signal/key_norm.hpp>
#include <kvist/policy/signal/window_attention.hpp>

#include <array>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// The score whose chunks are ranked: SnapKV's votes, KeyNorm's or KeyDiff's.
enum class ChunkScore : std::uint8_t { attention, norm, diversity };
template <>
struct EnumNames<ChunkScore> {
  static constexpr std::array<const char*, 3> names{"attention", "norm", "diversity"};
};

struct ChunkKVOptions {
  Index chunk = 20;  // kvpress
  ChunkScore score = ChunkScore::attention;
  Index window = 32;  // of score=attention; kvpress's SnapKV: 64
  int kernel = 5;
  PoolMode pool = PoolMode::avg;
  Total total = Total::exact;
};

/// Once after the prompt: ranks chunks of consecutive entries by their mean score over all heads of the
/// layer, and keeps the best, the same in each head.
///
/// Scores of heads add up as they are. Entries of the window score more than any vote can reach, so the
/// chunks of the window stay where the budget allows. The budget is met exactly: the last chunk that has room
/// is cut to its best entries; total=official keeps floor(chunks * budget / n) whole chunks as kvpress does.
/// kvpress marks the window with the largest score plus 1 instead of the group's size, and ranks a prompt
/// shorter than a chunk for each head. The paper's reuse of one layer's choice in the next is left out.
/// Source: Liu et al. 2025, arXiv 2502.00299; NVIDIA/kvpress, ChunkKVPress.
struct ChunkKV {
  static constexpr MethodInfo info{
      "ChunkKV",
      "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference",
      "Liu et al. 2025, arXiv 2502.00299",
      "WindowAttention (or KeyNorm, KeyDiversity) + SharedByHeads + Chunks + AfterPrefill",
      "queries of the prompt's last window (score=attention)",
      "drops",
      Fidelity::simplified,
      "no reuse of indices over layers; the last chunk is cut to meet the budget"};
  using Options = ChunkKVOptions;
  template <Signal S>
  using Of = Policy<SharedByHeads<S>, Chunks>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("chunk", o.chunk, "consecutive entries that stay or leave together");
    v("score", o.score, "what ranks: attention, norm or diversity (of keys)");
    v("window", o.window, "last queries that vote (score=attention)");
    v("kernel", o.kernel, "pooling width, odd (score=attention)");
    v("pool", o.pool, "avg, max or none (score=attention)");
    v("total", o.total, "exact, or official: whole chunks only");
  }
  /// Any signal's scores by chunks.
  template <Signal S>
  static Of<S> of(S signal, const Options& o) {
    return Of<S>(SharedByHeads<S>{std::move(signal)}, Chunks{o.chunk, o.total == Total::exact});
  }
  static WindowAttention votes(const Options& o) { return {o.window, o.kernel, o.pool, Reduce::mean, false}; }
  static Result<AnyPolicy> make_any(const Options& o, const PolicySettings& settings) {
    if (o.chunk < 1) return Error{Errc::bad_option, "a chunk holds at least one entry", 1, o.chunk};
    if (o.score == ChunkScore::norm) return with_settings(of(KeyNorm{}, o), settings);
    if (o.score == ChunkScore::diversity) return with_settings(of(KeyDiversity{}, o), settings);
    return with_settings(of(votes(o), o), settings);
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
