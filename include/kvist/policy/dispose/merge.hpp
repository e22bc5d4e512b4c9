#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/dispose/gate.hpp>
#include <kvist/policy/dispose/mass.hpp>
#include <kvist/policy/dispose/match/nearest_kept.hpp>
#include <kvist/policy/dispose/merge_call.hpp>
#include <kvist/policy/dispose/target.hpp>
#include <kvist/policy/dispose/weights.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Losers are folded into entries that stay, instead of being dropped: put together from a matching (who goes into whom), a
/// gate (which matches hold; the other losers are dropped), weights, a target (what is averaged) and a mass (what the
/// merged entry weighs in attention). Any of the parts in match/, gate.hpp, weights.hpp, target.hpp, mass.hpp goes with
/// any other.
///
/// A matching that `sizes` decides by itself how many entries stay (runs, bipartite chunks); it wants a selector that
/// chooses nobody (ChooseNone). Whatever was not a number, or would make a weight that is none, is dropped.
/// What was blended stays blended when later tokens are taken back.
///
/// Needs: keys and values, and what the mass wants. State: a count an entry, and the gate's. Cost: the matching's, a copy of
/// the keys, and dk + dv multiply-adds a folded entry where the plan is carried out.
template <class Match, class Gate = Always, class Weights = CountMean, class Target = NewCentroid, class Mass = LogCount>
struct Merge {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops | blends;
  static constexpr bool sizes = Match::sizes;
  using Entry = MergeRecord;
  struct PerHead {
    typename Gate::State gate;

    /// For snapshots.
    template <class V, class Self>
    static void fields(V& v, Self& self) {
      Gate::fields(v, self.gate);
    }
  };

  Match match{};
  Gate gate{};
  Weights weights{};
  Target target{};
  Mass mass{};

  Wants wants() const { return mass.wants(); }
  bool adds_records() const { return mass.counts(); }
  /// Does the matching's own threshold decide how many entries stay, without a budget?
  bool free_size() const {
    if constexpr (Match::sizes) return match.free_size();
    else return false;
  }

  template <Head H>
  Status dispose(const HeadContext<H>& c, std::span<const float> scores, std::span<const Entry> records,
                 PerHead& own, HeadPlan& plan) const {
    if (!sizes && plan.drop.empty()) return Done{};
    if (target.raw_keys && c.head.form != KeyForm::raw)
      return Error{Errc::unsupported, "this merge averages raw keys, and the view holds rotated ones"};
    auto keys = c.scratch.floats(std::size_t(c.size()) * std::size_t(c.shape.dim_k));
    return merge(MergeCall::of(c, scores, records, keys), own, plan);
  }

  /// The head budgets of a layer whose heads share one threshold: the `mean` entries per head are met over all of them.
  template <Head H>
  Status share(std::span<const HeadContext<H>> heads, ScoreTable scores,
               std::span<const std::span<const Entry>> records, Index mean, std::span<Index> out) const requires
      requires(const MergeCall& c, std::vector<float>& s) {
    match.strengths(c, s);
  }
  {
    struct Link {
      float strength;
      std::size_t head;
    };
    std::vector<Link> all;
    std::vector<float> mine;
    long long held = 0;
    for (std::size_t h = 0; h < heads.size(); ++h) {
      auto keys = heads[h].scratch.floats(std::size_t(heads[h].size()) * std::size_t(heads[h].shape.dim_k));
      match.strengths(MergeCall::of(heads[h], scores[h], records[h], keys), mine);
      for (const float s : mine) all.push_back({s, h});
      out[h] = heads[h].size();
      held += heads[h].size();
    }
    const long long wanted = held - (long long)mean * (long long)heads.size();
    if (wanted <= 0) return Done{};
    if (wanted > (long long)all.size()) {  // every head by itself: protected entries must give way
      for (Index& b : out) b = std::min(b, mean);
      return Done{};
    }
    // Of equal links those of the earlier head, then the earlier row join: the order they were added in.
    std::stable_sort(all.begin(), all.end(),
                     [](const Link& a, const Link& b) { return a.strength > b.strength; });
    for (long long i = 0; i < wanted; ++i) --out[all[std::size_t(i)].head];
    return Done{};
  }

  /// Counts follow: called when a plan was carried out, with its rows as they were before.
  void applied(const HeadPlan& plan, std::span<Entry> records, PerHead& own) const {
    for (const Blend& b : plan.blend) records[std::size_t(b.dst)].count += records[std::size_t(b.src)].count;
    gate.commit(own.gate);
  }

 private:
  Status merge(const MergeCall& c, PerHead& own, HeadPlan& plan) const {
    std::vector<MergePair> pairs;
    if (Status s = match.find(c, plan.drop, pairs); !s) return s;
    std::erase_if(pairs, [](const MergePair& p) { return !std::isfinite(p.similarity); });
    gate.filter(c, own.gate, pairs);
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const MergePair& a, const MergePair& b) { return a.dst < b.dst; });
    std::vector<float> w, wk, wv;
    for (std::size_t first = 0, end; first < pairs.size(); first = end) {
      for (end = first + 1; end < pairs.size() && pairs[end].dst == pairs[first].dst;) ++end;
      const MergeGroup group{pairs[first].dst, std::span<const MergePair>(pairs).subspan(first, end - first)};
      const std::size_t m = end - first + 1;
      w.resize(m), wk.resize(m), wv.resize(m);
      weights.weigh(c, group, w);
      target.apply(c, group, w, wk, wv);
      const float log_weight = mass.log_weight(c, group, wk);
      const auto finite = [](const std::vector<float>& x) {
        return std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
      };
      if (!finite(wk) || !finite(wv) || !std::isfinite(log_weight)) continue;  // the members are dropped
      plan.self.push_back({group.dst, wk[0], wv[0], log_weight});
      for (std::size_t i = 1; i < m; ++i)
        plan.blend.push_back({group.members[i - 1].src, group.dst, wk[i], wv[i]});
    }
    std::sort(plan.blend.begin(), plan.blend.end(),
              [](const Blend& a, const Blend& b) { return a.src < b.src; });
    return Done{};
  }
};
static_assert(Disposition<Merge<NearestKept>>);

}  // namespace kvist::inline KVIST_ABI
