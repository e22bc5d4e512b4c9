#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

#include <numeric>

namespace kvist::inline KVIST_ABI {

/// How many of the newest, or of the most attended, entries are left alone: a count, or below 1 a share of the head.
struct Portion {
  double value = 0;
  bool counted() const { return value >= 1; }
  Index of(Index n) const {
    const double x = value < 1 ? double(n) * value : value;
    return Index(std::clamp(std::round(x), 0.0, double(n)));
  }
};

/// Runs of neighbouring entries with alike keys become one entry each, which stands at the run's most attended member (of
/// equal ones the oldest). It decides how many entries stay: nothing has to be chosen before.
///
/// The link between rows i and i+1 is the cosine of their keys; a link above the threshold joins them, so that membership
/// is by neighbours alone, never by likeness to the pivot. Guarded entries, the newest `recent` and the `top` most attended
/// ones stand alone. With `by_budget` the threshold is as low as the budget asks: of links that are alike at it the earlier
/// ones join, so that the budget is met exactly; where whole runs do not suffice, entries that only a share protects join in,
/// the least attended ones first, and as a last resort entries that could not be folded are dropped. Counts are promises:
/// they hold, or the budget is refused.
/// Source: arXiv 2407.08454 (KVMerger), the merging set identification; the budget is this library's.
/// Cost: n*dk multiply-adds and a selection among n links.
/// Fails with: bad_budget where the guards and the counts given are more than the budget.
struct AdjacentRuns {
  static constexpr bool sizes = true;
  float threshold = 0.75f;
  bool by_budget = false;
  bool of_budget = false;  ///< shares are shares of the budget, where that decides
  Portion recent, top;

  bool free_size() const { return !by_budget; }

  Status find(const MergeCall& c, std::vector<Index>& drop, std::vector<MergePair>& pairs) const {
    if (c.n < 2 || (by_budget && c.n <= c.budget)) return Done{};
    if (const Index asked = promised(c), most = std::max(c.budget, c.mean); by_budget && asked > most)
      return Error{Errc::bad_budget,
                   "the entries that stay alone (sinks, recent and top) do not fit in the budget", asked, most};
    auto link = c.scratch->floats(std::size_t(c.n));
    detail::neighbour_cosines(c, link);
    std::vector<char> alone = protected_rows(c);
    std::vector<char> joined(std::size_t(c.n), 0);  // row i with row i + 1
    if (!by_budget) {
      for (Index i = 0; i + 1 < c.n; ++i)
        joined[std::size_t(i)] = usable(alone, i) && link[std::size_t(i)] > threshold;
    } else {
      const Index wanted = c.n - c.budget;
      std::vector<Index> links = usable_links(alone, c.n);
      if (Index(links.size()) < wanted) {  // fewer of what a share protects can stand alone
        alone = protected_rows(c, wanted);
        links = usable_links(alone, c.n);
      }
      const Index taken = std::min(wanted, Index(links.size()));
      if (taken > 0)
        std::nth_element(links.begin(), links.begin() + taken - 1, links.end(),
                         [&](Index a, Index b) { return stronger(link, a, b); });
      for (Index i = 0; i < taken; ++i) joined[std::size_t(links[std::size_t(i)])] = 1;
    }
    std::vector<Index> losers;
    for (Index first = 0, end; first < c.n; first = end) {
      for (end = first + 1; end < c.n && joined[std::size_t(end - 1)];) ++end;
      if (end - first < 2) continue;
      Index pivot = first;
      for (Index i = first + 1; i < end; ++i)
        if (c.score(i) > c.score(pivot)) pivot = i;
      if (pivot < c.shared_rows) continue;
      for (Index i = first; i < end; ++i) {
        if (i == pivot) continue;
        losers.push_back(i);
        pairs.push_back({i, pivot, weakest(link, std::min(i, pivot), std::max(i, pivot))});
      }
    }
    detail::add_losers(drop, losers);
    if (by_budget) drop_the_rest(c, alone, drop, pairs);
    return Done{};
  }

  /// The links that may be used, by strength: what a budget shared by several heads ranks.
  void strengths(const MergeCall& c, std::vector<float>& out) const {
    auto link = c.scratch->floats(std::size_t(c.n));
    detail::neighbour_cosines(c, link);
    out.clear();
    const std::vector<char> alone = protected_rows(c);
    for (Index i = 0; i + 1 < c.n; ++i)
      if (usable(alone, i)) out.push_back(std::isnan(link[std::size_t(i)]) ? -2.0f : link[std::size_t(i)]);
  }

 private:
  /// Entries that guards and counts keep alone at most.
  Index promised(const MergeCall& c) const {
    return std::max(c.guards.sinks, c.shared_rows) +
           std::max(c.guards.recent, recent.counted() ? recent.of(c.n) : 0) + (top.counted() ? top.of(c.n) : 0);
  }
  static bool usable(const std::vector<char>& alone, Index i) {
    return !alone[std::size_t(i)] && !alone[std::size_t(i) + 1];
  }
  static std::vector<Index> usable_links(const std::vector<char>& alone, Index n) {
    std::vector<Index> out;
    for (Index i = 0; i + 1 < n; ++i)
      if (usable(alone, i)) out.push_back(i);
    return out;
  }
  /// A link that is no number is weaker than any other.
  static bool stronger(std::span<const float> link, Index a, Index b) {
    const float x = link[std::size_t(a)], y = link[std::size_t(b)];
    if (std::isnan(x) || std::isnan(y)) return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
    return x > y || (x == y && a < b);
  }
  static float weakest(std::span<const float> link, Index from, Index to) {
    float least = link[std::size_t(from)];
    for (Index i = from; i < to; ++i)
      if (const float x = link[std::size_t(i)]; std::isnan(x) || x < least) least = x;
    return least;
  }

  /// Guarded, newest and most attended rows: 1, or 2 where a count says so. With `wanted` > 0, of those that a share protects
  /// as many as leave that many links.
  std::vector<char> protected_rows(const MergeCall& c, Index wanted = 0) const {
    const Index n = c.n, base = of_budget && by_budget ? c.mean : n;
    const Index first = std::max(c.guards.sinks, c.shared_rows),
                newest = std::max(c.guards.recent, recent.of(base));
    std::vector<char> alone(std::size_t(n), 0);
    for (Index i = 0; i < n; ++i)
      alone[std::size_t(i)] = i >= n - newest && recent.counted() ? 2 : i < first || i >= n - newest;
    Index links = 0;
    for (Index i = 0; i + 1 < n; ++i) links += usable(alone, i);
    const auto around = [&](Index row) {  // links that the row has, or would have
      return Index(row > 0 && !alone[std::size_t(row) - 1]) + Index(row + 1 < n && !alone[std::size_t(row) + 1]);
    };
    for (Index i = std::max<Index>(first, n - newest);
         !recent.counted() && i < n - c.guards.recent && links < wanted; ++i) {
      alone[std::size_t(i)] = 0;
      links += around(i);
    }
    const Index chosen = std::min(top.of(base), n);
    if (chosen == 0) return alone;
    std::vector<Index> order(std::size_t(n), 0);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + chosen, order.end(), [&](Index a, Index b) {
      return c.score(a) > c.score(b) || (c.score(a) == c.score(b) && a < b);
    });
    for (Index i = 0; i < chosen; ++i) {
      const Index row = order[std::size_t(i)];
      if (top.counted() && alone[std::size_t(row)]) alone[std::size_t(row)] = 2;
      if (alone[std::size_t(row)]) continue;
      if (!top.counted() && wanted > 0 && links - around(row) < wanted) break;
      links -= around(row);
      alone[std::size_t(row)] = top.counted() ? 2 : 1;
    }
    return alone;
  }

  /// Lets the least attended entries go that no guard and no count keeps, where runs alone do not meet the budget.
  static void drop_the_rest(const MergeCall& c, const std::vector<char>& alone, std::vector<Index>& drop,
                            std::vector<MergePair>& pairs) {
    Index over = c.n - Index(drop.size()) - c.budget;
    if (over <= 0) return;
    std::vector<Index> rest;
    std::size_t d = 0;
    for (Index i = 0; i < c.n; ++i) {
      if (d < drop.size() && drop[d] == i) ++d;
      else if (!c.guards.holds(i, c.n) && alone[std::size_t(i)] != 2) rest.push_back(i);
    }
    over = std::min(over, Index(rest.size()));
    std::partial_sort(rest.begin(), rest.begin() + over, rest.end(), [&](Index a, Index b) {
      return c.score(a) < c.score(b) || (c.score(a) == c.score(b) && a > b);
    });
    rest.resize(std::size_t(over));
    std::erase_if(
        pairs, [&](const MergePair& p) { return std::find(rest.begin(), rest.end(), p.dst) != rest.end(); });
    detail::add_losers(drop, rest);
  }
};

/// Each loser is matched with the kept entry before or behind it in the sequence: the losers between two kept entries are
/// parted at the weakest link (the cosine of neighbouring keys; of equal ones the first). The similarity of a pair is the
/// weakest link on the way to the kept entry. So the drop of any policy becomes runs with the kept entries as pivots.
///
/// Cost: n*dk multiply-adds.
struct RunsOfKept {
  static constexpr bool sizes = false;

  Status find(const MergeCall& c, std::vector<Index>& drop, std::vector<MergePair>& pairs) const {
    auto link = c.scratch->floats(std::size_t(c.n));
    detail::neighbour_cosines(c, link);
    const auto strength = [&](Index i) {
      return std::isnan(link[std::size_t(i)]) ? -2.0f : link[std::size_t(i)];
    };
    for (std::size_t d = 0, next; d < drop.size(); d = next) {
      for (next = d + 1; next < drop.size() && drop[next] == drop[next - 1] + 1;) ++next;
      const Index before = drop[d] - 1, behind = drop[next - 1] + 1;  // the kept neighbours, or none
      const bool left = before >= c.shared_rows, right = behind < c.n && behind >= c.shared_rows;
      if (!left && !right) continue;
      Index cut = left ? behind : before;  // rows up to it go to `before`
      if (left && right) {
        cut = before;
        for (Index i = before + 1; i < behind; ++i)
          if (strength(i) < strength(cut)) cut = i;
      }
      float way = 2;
      const std::size_t begin = pairs.size();
      for (Index i = before + 1; i < behind && i <= cut; ++i) {
        way = std::min(way, strength(i - 1));
        pairs.push_back({i, before, way});
      }
      way = 2;
      const std::size_t middle = pairs.size();
      for (Index i = behind - 1; i > before && i > cut; --i) {
        way = std::min(way, strength(i));
        pairs.push_back({i, behind, way});
      }
      std::reverse(pairs.begin() + std::ptrdiff_t(middle), pairs.end());
      for (std::size_t p = begin; p < pairs.size(); ++p)
        if (pairs[p].similarity <= -2) pairs[p].similarity = std::numeric_limits<float>::quiet_NaN();
    }
    return Done{};
  }
};

}  // namespace kvist::inline KVIST_ABI
