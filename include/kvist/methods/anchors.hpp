#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/signal/given_scores.hpp>
#include <kvist/policy/signal/uniform_random.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct RandomOptions {
  std::uint64_t seed = 1;
  Index sinks = 4, recent = 32;
};

/// The lower anchor: the first 4 and last 32 entries, the rest drawn by each KV head for itself. Without the protected ends
/// the anchor is several times worse, so that comparisons with it would flatter every method.
struct RandomEviction {
  static constexpr MethodInfo info{"random",
                                   "Lower anchor: protected ends, the rest drawn at random",
                                   "",
                                   "UniformRandom + KeepEnds + TopK",
                                   "nothing",
                                   "drops",
                                   Fidelity::exact,
                                   ""};
  using Options = RandomOptions;
  using Type = Policy<UniformRandom>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("seed", o.seed, "of the draws");
    v("sinks", o.sinks, "first entries that stay");
    v("recent", o.recent, "newest entries that stay");
  }
  static Result<Type> make(const Options& o) {
    return Type(UniformRandom{o.seed}, KeepEnds{o.sinks, o.recent});
  }
};

struct WindowOptions {};

/// The newest entries only: a sliding window over true positions.
struct Window {
  static constexpr MethodInfo info{
      "window", "Anchor: the newest entries only", "", "Recency + TopK", "nothing", "drops", Fidelity::exact,
      ""};
  using Options = WindowOptions;
  using Type = Policy<Recency>;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<Type> make(const Options&) { return Type(); }
};

/// The upper anchor: the entries that get most attention mass from the continuation's own queries, per KV head. Only a tool
/// that has run the continuation with the full cache can make it: it hands the masses in.
struct Oracle {
  static constexpr MethodInfo info{"oracle",
                                   "Upper anchor: what the continuation's own queries attend to most",
                                   "",
                                   "GivenScores + TopK",
                                   "the continuation (the tool runs it)",
                                   "drops",
                                   Fidelity::exact,
                                   ""};
  using Options = CommonOptions;
  using Type = Policy<GivenScores>;
  /// No options but those of every eviction method.
  template <class V>
  static void fields(V& v, Options& o) {
    CommonOptions::fields(v, o);
  }
  static Type make(std::shared_ptr<const ScoresByPosition> masses, const PolicySettings& settings = {}) {
    Type policy(GivenScores{std::move(masses)});
    policy.settings = settings;
    return policy;
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
