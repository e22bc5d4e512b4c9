#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>

#include <array>

namespace kvist::inline KVIST_ABI {
namespace methods {

enum class PositionScheme : std::uint8_t { keep, compact };
template <>
struct EnumNames<PositionScheme> {
  static constexpr std::array<const char*, 2> names{"keep", "compact"};
};

struct StreamingLLMOptions {
  Index sinks = 4;  // the paper's recommendation; its perplexity script uses 1
  PositionScheme positions = PositionScheme::keep;
};

/// Keeps the first `sinks` entries and the newest of the rest, at every step.
///
/// The paper renumbers positions inside the cache (positions=compact: raw keys, rotated by their row when read), so that
/// streams longer than the training length stay in distribution; kvpress and most engines keep true positions, which is
/// the default here because it composes with every store at full speed.
/// Source: Xiao et al. 2023, arXiv 2309.17453; official code mit-han-lab/streaming-llm, kv_cache.py.
struct StreamingLLM {
  static constexpr MethodInfo info{
      "StreamingLLM",
      "Efficient Streaming Language Models with Attention Sinks",
      "Xiao et al. 2023, arXiv 2309.17453",
      "Recency + KeepEnds + TopK + EveryStep",
      "nothing",
      "drops",
      Fidelity::adapted,
      "true positions are kept by default; positions=compact is the paper's scheme"};
  using Options = StreamingLLMOptions;
  using Type = Policy<Recency, KeepEnds, EveryStep>;
  using CompactType = Policy<Recency, KeepEnds, EveryStep, CompactPositions>;

  template <class V>
  static void fields(V& v, Options& o) {
    v("sinks", o.sinks, "first entries that stay");
    v("positions", o.positions, "keep true positions, or renumber by row (compact)");
  }
  static Type keep(const Options& o) { return Type(KeepEnds{o.sinks, 0}); }
  static CompactType compact(const Options& o) { return CompactType(KeepEnds{o.sinks, 0}); }
  static Result<AnyPolicy> make_any(const Options& o, const PolicySettings& settings) {
    if (o.positions == PositionScheme::compact) return with_settings(compact(o), settings);
    return with_settings(keep(o), settings);
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
