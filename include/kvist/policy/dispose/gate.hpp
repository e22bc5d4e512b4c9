#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

#include <numeric>
#include <utility>

namespace kvist::inline KVIST_ABI {

// Gates of a merge: which of the matched losers are folded. A loser that does not pass is dropped. A gate's `State` is kept
// for each head; what filter() notes in it counts once the plan was carried out (commit), and fields() saves it in snapshots.

/// Every match passes.
struct Always {
  struct State {};
  void filter(const MergeCall&, State&, std::vector<MergePair>&) const {}
  void commit(State&) const {}
  template <class V, class Self>
  static void fields(V&, Self&) {}
};

/// Matches at least as similar as `least` pass.
struct Threshold {
  struct State {};
  float least = 0;
  void filter(const MergeCall&, State&, std::vector<MergePair>& pairs) const {
    std::erase_if(pairs, [&](const MergePair& p) { return p.similarity < least; });
  }
  void commit(State&) const {}
  template <class V, class Self>
  static void fields(V&, Self&) {}
};

/// A threshold that follows the similarities: at first the mean of a call's matches, then alpha times the last threshold
/// plus beta times the mean. Matches at or above it pass.
/// Source: Wan et al. 2025, arXiv 2406.13035 (D2O); the constants are those of its official code's arguments.
struct MovingThreshold {
  struct State {
    float tau = 0, next = 0;
    std::int32_t started = 0, pending = 0;  ///< 0 or 1
  };
  float alpha = 0.5f, beta = 0.5f;
  void filter(const MergeCall&, State& s, std::vector<MergePair>& pairs) const {
    s.pending = pairs.empty() ? 0 : 1;
    if (pairs.empty()) return;
    double sum = 0;
    for (const MergePair& p : pairs) sum += double(p.similarity);
    const float mean = float(sum / double(pairs.size()));
    s.next = s.started ? alpha * s.tau + beta * mean : mean;
    std::erase_if(pairs, [&](const MergePair& p) { return p.similarity < s.next; });
  }
  void commit(State& s) const {
    if (s.pending) s.tau = s.next;
    s.started = s.started | s.pending;
    s.pending = 0;
  }
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    constexpr float most = std::numeric_limits<float>::max();
    v.number(s.tau, -most, most), v.number(s.next, -most, most);
    v.number(s.started, 0, 1), v.number(s.pending, 0, 1);
  }
};

/// The most similar matches pass, `share` of a call's matches (rounded down) but at most `most`; of equal ones the lower
/// rows.
struct TopMatches {
  struct State {};
  double share = 1;
  Index most = std::numeric_limits<Index>::max();
  void filter(const MergeCall&, State&, std::vector<MergePair>& pairs) const {
    const std::size_t stay = std::min(std::size_t(std::max<Index>(most, 0)),
                                      std::size_t(double(pairs.size()) * std::clamp(share, 0.0, 1.0)));
    if (stay >= pairs.size()) return;
    std::nth_element(pairs.begin(), pairs.begin() + std::ptrdiff_t(stay), pairs.end(),
                     [](const MergePair& a, const MergePair& b) {
                       return a.similarity > b.similarity || (a.similarity == b.similarity && a.src < b.src);
                     });
    pairs.resize(stay);
    std::sort(pairs.begin(), pairs.end(), [](const MergePair& a, const MergePair& b) { return a.src < b.src; });
  }
  void commit(State&) const {}
  template <class V, class Self>
  static void fields(V&, Self&) {}
};

/// The best of the losers pass: as many as `times` the entries that stay, ranked by the policy's score (of equal ones the
/// lower rows); worse ones are dropped as irrelevant.
/// Source: arXiv 2412.08521 (EMS): irrelevant, to be merged, kept. The sizes of its tiers are not published.
struct BestLosers {
  struct State {};
  double times = 1;
  void filter(const MergeCall& c, State&, std::vector<MergePair>& pairs) const {
    const double stay = std::max(0.0, times) * double(c.budget);
    if (stay >= double(pairs.size())) return;
    std::nth_element(pairs.begin(), pairs.begin() + std::ptrdiff_t(stay), pairs.end(),
                     [&](const MergePair& a, const MergePair& b) {
                       return c.score(a.src) > c.score(b.src) ||
                              (c.score(a.src) == c.score(b.src) && a.src < b.src);
                     });
    pairs.resize(std::size_t(stay));
    std::sort(pairs.begin(), pairs.end(), [](const MergePair& a, const MergePair& b) { return a.src < b.src; });
  }
  void commit(State&) const {}
  template <class V, class Self>
  static void fields(V&, Self&) {}
};

/// What passes A and then B.
template <class A, class B>
struct BothGates {
  struct State {
    typename A::State a;
    typename B::State b;
  };
  A a;
  B b;
  void filter(const MergeCall& c, State& s, std::vector<MergePair>& pairs) const {
    a.filter(c, s.a, pairs);
    b.filter(c, s.b, pairs);
  }
  void commit(State& s) const {
    a.commit(s.a);
    b.commit(s.b);
  }
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    A::fields(v, s.a);
    B::fields(v, s.b);
  }
};

}  // namespace kvist::inline KVIST_ABI
