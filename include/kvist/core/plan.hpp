#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// What a disposition can make, and what an engine can apply, as flags.
enum Makes : unsigned { drops = 1, blends = 2, moves = 4 };

/// A dropped entry folded into one that stays. Weights are absolute, so the order of blends does not matter:
/// new K[dst] = self.wk * K[dst] + sum of wk * K[src], the same for V with wv. Values alone are blended with wk = 0.
struct Blend {
  Index src = 0, dst = 0;
  float wk = 0, wv = 0;
  friend bool operator==(const Blend&, const Blend&) = default;
};

/// The weights that a blended entry keeps of itself, and what is added to its logit from then on (log n where it
/// stands for n equal entries).
struct Self {
  Index dst = 0;
  float wk = 1, wv = 1, log_weight = 0;
  friend bool operator==(const Self&, const Self&) = default;
};

/// An entry that stays, in another tier (store) of the head.
struct Move {
  Index src = 0;
  std::uint8_t tier = 0;
  friend bool operator==(const Move&, const Move&) = default;
};

/// What changes in one head; nothing named, nothing done. Rows are those of the head when the plan was made.
struct HeadPlan {
  std::vector<Index> drop;   ///< ascending, unique
  std::vector<Blend> blend;  ///< ascending by src; every src is in drop, every dst is not
  std::vector<Self> self;  ///< ascending by dst, one for each dst of blend (and for entries that only get a weight)
  std::vector<Move> move;  ///< ascending by src, none of them dropped

  bool empty() const { return drop.empty() && blend.empty() && self.empty() && move.empty(); }
  void clear() {
    drop.clear();
    blend.clear();
    self.clear();
    move.clear();
  }
  friend bool operator==(const HeadPlan&, const HeadPlan&) = default;
};

/// What a plan does to one head, stated with it. Masses and bounds are over the queries seen by the call; NaN where
/// no queries or probabilities were at hand.
struct HeadCost {
  static constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
  Index before = 0, after = 0;   ///< entries of the tier that is planned over
  Index moved = 0;               ///< that stay in another tier, and are not in `after`
  std::size_t bytes_before = 0;  ///< of K and V as the view stores them
  std::optional<std::size_t> bytes_after =
      0;                 ///< likewise; none where entries move: another tier codes them its way
  float mass = unknown;  ///< mean over queries (and the group) of the attention mass on the entries given up
  float bound = unknown;  ///< largest over queries of a bound on |o - o'|_2, the change of the attention output
};

/// What is to be done to one layer: one HeadPlan for each KV head. A value: the engine applies it with its own code,
/// or with apply_in_place, or a Cache does.
struct Plan {
  int layer = 0;
  std::vector<HeadPlan> heads;
  std::vector<HeadCost> cost;  ///< [heads]

  bool empty() const {
    for (const HeadPlan& h : heads)
      if (!h.empty()) return false;
    return true;
  }
};

/// Entries [0, sinks) and [n - recent, n) of a head are never given up.
struct Guards {
  Index sinks = 0, recent = 0;
  bool holds(Index row, Index n) const { return row < sinks || row >= n - recent; }
  friend bool operator==(const Guards&, const Guards&) = default;
};

/// Is `plan` well formed for a head of n entries, and are its guards kept? Every checked build asks this of every plan.
/// Fails with: bad_shape and the row at fault.
inline Status check(const HeadPlan& plan, Index n, const Guards& guards = {}) {
  const auto fault = [](const char* what, long long want, long long got) {
    return Error{Errc::bad_shape, what, want, got};
  };
  std::vector<char> gone(std::size_t(n > 0 ? n : 0), 0);
  Index last = -1;
  for (const Index i : plan.drop) {
    if (i < 0 || i >= n) return fault("a dropped row lies outside the head", n, i);
    if (i <= last) return fault("dropped rows must ascend, each named once", last + 1, i);
    if (guards.holds(i, n)) return fault("a guarded row is dropped", n, i);
    gone[std::size_t(i)] = 1;
    last = i;
  }
  last = -1;
  for (const Self& s : plan.self) {
    if (s.dst < 0 || s.dst >= n) return fault("a blend's own row lies outside the head", n, s.dst);
    if (s.dst <= last)
      return fault("rows that keep a weight of their own must ascend, each named once", last + 1, s.dst);
    if (gone[std::size_t(s.dst)]) return fault("a row that is dropped keeps a weight", -1, s.dst);
    if (!std::isfinite(s.wk) || !std::isfinite(s.wv) || !std::isfinite(s.log_weight))
      return fault("a blend's own weight is not finite", 0, s.dst);
    last = s.dst;
  }
  last = -1;
  for (const Blend& b : plan.blend) {
    if (b.src < 0 || b.src >= n || b.dst < 0 || b.dst >= n)
      return fault("a blend names a row outside the head", n, b.src);
    if (b.src < last) return fault("blends must ascend by source", last, b.src);
    if (!gone[std::size_t(b.src)]) return fault("a blend's source is not dropped", -1, b.src);
    if (gone[std::size_t(b.dst)]) return fault("a blend's destination is dropped", -1, b.dst);
    if (!std::binary_search(plan.self.begin(), plan.self.end(), Self{b.dst, 1, 1, 0},
                            [](const Self& x, const Self& y) { return x.dst < y.dst; }))
      return fault("a blend's destination has no weights of its own", 1, b.dst);
    if (!std::isfinite(b.wk) || !std::isfinite(b.wv))
      return fault("a blend's weight is not finite", 0, b.src);
    last = b.src;
  }
  last = -1;
  for (const Move& m : plan.move) {
    if (m.src < 0 || m.src >= n) return fault("a moved row lies outside the head", n, m.src);
    if (m.src <= last) return fault("moved rows must ascend, each named once", last + 1, m.src);
    if (gone[std::size_t(m.src)]) return fault("a dropped row is moved", -1, m.src);
    last = m.src;
  }
  return Done{};
}

/// Rows of a head of n entries that stay (moved ones included), ascending.
inline std::vector<Index> survivors(const HeadPlan& plan, Index n) {
  std::vector<Index> out;
  out.reserve(std::size_t(n) - plan.drop.size());
  std::size_t d = 0;
  for (Index i = 0; i < n; ++i) {
    if (d < plan.drop.size() && plan.drop[d] == i) ++d;
    else out.push_back(i);
  }
  return out;
}

/// A run of consecutive rows.
struct Range {
  Index first = 0, count = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

/// The dropped rows as maximal runs, ascending: what engines with remove-range calls want.
inline std::vector<Range> ranges(const HeadPlan& plan) {
  std::vector<Range> out;
  for (const Index i : plan.drop) {
    if (!out.empty() && out.back().first + out.back().count == i) ++out.back().count;
    else out.push_back({i, 1});
  }
  return out;
}

/// Indices into the page table of pages that the plan empties as a whole, ascending. Pages below `shared_rows` are a
/// prefix that other sequences use and are never named. Requires: page >= 1.
inline std::vector<Index> free_pages(const HeadPlan& plan, Index n, Index page, Index shared_rows = 0) {
  std::vector<Index> out;
  for (const Range& r : ranges(plan)) {
    long long end = (long long)r.first + r.count;
    if (end == n) end = (end + page - 1) / page * page;  // the last page may be filled in part
    const long long first = std::max(r.first, shared_rows);
    for (long long p = (first + page - 1) / page; (p + 1) * page <= end; ++p) out.push_back(Index(p));
  }
  return out;
}

/// Copy row `from` to row `to` (to < from): the moves, in order, that close the gaps of a plan.
struct RowMove {
  Index from = 0, to = 0;
  friend bool operator==(const RowMove&, const RowMove&) = default;
};

/// The copies that leave the survivors packed in rows 0 .. kept-1 in their order; whole pages at the end become free:
/// row i lies in page table entry i / page before and after.
inline std::vector<RowMove> pack_moves(const HeadPlan& plan, Index n) {
  std::vector<RowMove> out;
  Index to = 0;
  for (const Index from : survivors(plan, n)) {
    if (from != to) out.push_back({from, to});
    ++to;
  }
  return out;
}

}  // namespace kvist::inline KVIST_ABI
