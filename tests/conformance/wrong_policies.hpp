#pragma once
// SPDX-License-Identifier: Apache-2.0
// Policies with one fault each, so that every law of this folder can show that it bites, and their faultless relatives.
#include <kvist/policy/any_policy.hpp>
#include <kvist/policy/signal/hit_history.hpp>

#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace kvist::test::wrong {

inline constexpr Guards guards{3, 5};

using Newest = Policy<Recency, KeepEnds, EveryStep>;
inline Newest newest() { return Newest(KeepEnds{guards.sinks, guards.recent}); }
inline AnyPolicy right_recency() { return newest(); }

/// Guards get the largest score instead of a mask: no use among ties, and none beside a NaN. Or a bonus on their own score:
/// none where that is -infinity.
struct GuardsByScore : Newest {
  bool bonus = false;
  explicit GuardsByScore(bool b = false) : Newest(newest()), bonus(b) {}
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    if (Status s = Newest::plan(call, st, out); !s) return s;
    for (std::size_t h = 0; h < out.back().heads.size(); ++h) {
      const auto& head = call.view.head(int(h));
      std::vector<float> score;
      for (Index i = 0; i < head.size(); ++i) score.push_back(head.keys.at(i, 2));
      float most = score[0];
      for (const float x : score) most = x > most || x != x ? x : most;
      for (Index i = 0; i < head.size(); ++i)
        if (guards.holds(i, head.size())) score[std::size_t(i)] = bonus ? score[std::size_t(i)] + 1e6f : most;
      auto& drop = out.back().heads[h].drop;
      const std::size_t losers = drop.size();
      drop.clear();
      std::vector<char> gone(score.size(), 0);
      for (std::size_t d = 0; d < losers; ++d) {
        std::size_t worst = score.size();
        for (std::size_t i = 0; i < score.size(); ++i)
          if (!gone[i] && (worst == score.size() || !(score[i] >= score[worst]))) worst = i;
        gone[worst] = 1;
      }
      for (std::size_t i = 0; i < gone.size(); ++i)
        if (gone[i]) drop.push_back(Index(i));
    }
    return Done{};
  }
};

/// Keeps `off` entries more than it may.
struct OffByOne : Newest {
  Index off = 1;
  explicit OffByOne(Index o) : Newest(newest()), off(o) {}
  template <LayerView L>
  Status plan(LayerCall<L> call, State& st, std::vector<Plan>& out) const {
    call.now.budget += off;
    for (auto& l : st.layers) l.budget = -1;
    return Newest::plan(call, st, out);
  }
};

/// Names positions where a plan wants rows.
struct DropsPositions : Newest {
  DropsPositions() : Newest(newest()) {}
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    if (Status s = Newest::plan(call, st, out); !s) return s;
    for (std::size_t h = 0; h < out.back().heads.size(); ++h)
      for (Index& i : out.back().heads[h].drop) i = call.view.head(int(h)).pos[std::size_t(i)];
    return Done{};
  }
};

/// Accumulated attention in a list of the head's own, which no plan and no truncate reaches: by row, or by position.
template <bool ByPosition>
struct OwnList {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  struct PerHead {
    std::vector<float> sum = std::vector<float>(512, 0.0f);
  };
  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }
  template <Head H>
  std::size_t place(const HeadContext<H>& c, std::size_t i) const {
    return std::size_t(ByPosition ? c.head.pos[i] : Pos(i)) % 512;
  }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead& mine) const {
    const Cube& rows = c.now.phase == Phase::prefill ? c.seen.column_sums : c.seen.probs;
    for (int g = 0; g < rows.g; ++g)
      for (std::size_t i = 0; i < std::size_t(rows.n); ++i)
        if (!ByPosition || c.head.pos[i] < 512) mine.sum[place(c, i)] += rows.row(g, 0)[i];
    return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead& mine, std::span<float> out) const {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = ByPosition && c.head.pos[i] >= 512 ? 0.0f : mine.sum[place(c, i)];
    return Done{};
  }
};
inline AnyPolicy records_by_position() {
  return Policy<OwnList<true>, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}
inline AnyPolicy records_by_row() {
  return Policy<OwnList<false>, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}

/// Names evidence that it then does not look for.
struct Trusting : Newest {
  Trusting() : Newest(newest()) {}
  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }
};

/// A history of hits that keeps those of tokens that were taken back.
struct Unforgetting : HitHistory {
  void truncate(std::span<Entry>, PerHead&, Pos) const {}
};
inline AnyPolicy unforgetting() {
  return Policy<Unforgetting, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}
inline AnyPolicy forgetting() {
  return Policy<HitHistory, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}

/// Draws from a generator that all calls of the program share.
struct Restless {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    static std::atomic<std::uint64_t> drawn{0};
    for (float& x : out) x = float(Random(++drawn).uniform());
    return Done{};
  }
};
inline AnyPolicy restless() {
  return Policy<Restless, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}

/// Attention received in decode steps (and, with `prompts`, from prompts) in records of the entries' own; or, as a fault,
/// in records that copies share.
template <bool Shared>
struct StepAttention {
  static constexpr Role role = Role::signal;
  struct Entry {
    std::shared_ptr<float> shared;
    float own = 0;
    float& sum() {
      if (Shared && !shared) shared = std::make_shared<float>(0.0f);
      return Shared ? *shared : own;
    }
    float sum() const { return Shared ? (shared ? *shared : 0.0f) : own; }
  };
  using PerHead = Nothing;
  bool prompts = false;
  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead&) const {
    const Cube& rows = c.now.phase == Phase::prefill ? c.seen.column_sums : c.seen.probs;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      float& sum = entries[i].sum();
      for (int g = 0; g < rows.g && (prompts || c.now.phase == Phase::decode); ++g) sum += rows.row(g, 0)[i];
    }
    return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = entries[i].sum();
    return Done{};
  }
};
using Recent = Policy<StepAttention<false>, KeepEnds, EveryStep>;
inline Recent recent() { return Recent(KeepEnds{guards.sinks, guards.recent}); }
inline AnyPolicy right_records() { return recent(); }
inline AnyPolicy shared_records() {
  return Policy<StepAttention<true>, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}

/// Accumulated attention by position for all sequences together.
struct OneForAll {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  std::shared_ptr<std::map<std::pair<int, Pos>, float>> sums =
      std::make_shared<std::map<std::pair<int, Pos>, float>>();
  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }
  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead&) const {
    const Cube& rows = c.now.phase == Phase::prefill ? c.seen.column_sums : c.seen.probs;
    for (std::size_t i = 0; i < entries.size(); ++i)
      (*sums)[{c.layer * 64 + c.index, c.head.pos[i]}] += rows.row(0, 0)[i];
    return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = (*sums)[{c.layer * 64 + c.index, c.head.pos[i]}];
    return Done{};
  }
};
inline AnyPolicy one_for_all() {
  return Policy<OneForAll, KeepEnds, EveryStep>(KeepEnds{guards.sinks, guards.recent});
}

/// Does not hear that tokens were taken back.
struct Deaf : Recent {
  Deaf() : Recent(recent()) { signal.prompts = true; }
  void truncate(State&, int, int, Index, Pos) const {}
};

/// Moves what it drops to another tier.
struct Resurrects : Newest {
  Resurrects() : Newest(newest()) {}
  static constexpr unsigned makes() { return drops | moves; }
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    if (Status s = Newest::plan(call, st, out); !s) return s;
    for (HeadPlan& h : out.back().heads)
      if (!h.drop.empty()) h.move.push_back({h.drop.front(), 1});
    return Done{};
  }
};

/// Drops one entry even where all of them fit.
struct Greedy : Newest {
  Greedy() : Newest(newest()) {}
  template <LayerView L>
  Status plan(LayerCall<L> call, State& st, std::vector<Plan>& out) const {
    Index most = 0;
    for (int h = 0; h < call.view.heads(); ++h) most = std::max(most, call.view.head(h).size());
    for (auto& l : st.layers) l.budget = -1;
    if (most > guards.sinks + guards.recent) call.now.budget = std::min(call.now.budget, most - 1);
    return Newest::plan(call, st, out);
  }
};

/// Drops the first entry of every head that has one.
struct DropsFirst : Newest {
  DropsFirst() : Newest(newest()) {}
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    if (Status s = Newest::plan(call, st, out); !s) return s;
    for (std::size_t h = 0; h < out.back().heads.size(); ++h)
      if (call.view.head(int(h)).size() > 1) out.back().heads[h].drop = {0};
    return Done{};
  }
};

/// Where guards do not fit in the budget it forgets them in silence.
struct Squeezes : Newest {
  Squeezes() : Newest(newest()) {}
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    Newest open = newest();
    if (call.now.budget < guards.sinks + guards.recent) open.guard = KeepEnds{};
    return open.plan(call, st, out);
  }
};

}  // namespace kvist::test::wrong
