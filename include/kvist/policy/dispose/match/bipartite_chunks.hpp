#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

/// Cuts the head into chunks of `chunk` rows; inside a chunk each even entry is matched with the odd one whose key is most
/// like it (of equal ones the first), and the likest pairs are folded. It decides how many entries stay.
///
/// Half of a chunk can leave at once; where the budget wants more, the survivors of each chunk, with the mean of their
/// members' keys, are parted into even and odd anew, and once a chunk has no pairs left chunks grow to twice their size.
/// Guarded entries take no part, and neither do keys that are not finite. `by_budget` folds the likest pairs of all chunks
/// of the head, as many as the budget asks; else all that are more alike than the threshold, in one pass. In both cases
/// entries that only the guards' neighbours could take, and that the budget has no room for, are dropped.
/// Source: Bolya et al. 2023, arXiv 2210.09461 (ToMe); chunks: arXiv 2506.11418 (Chelsea, CentroidKV), whose sizes are not
/// published. One ranking over all chunks is this library's choice; ToMe takes equally many of each image.
/// Cost: n * chunk/2 * dk multiply-adds a pass, and two copies of the keys; a few rows of a chunk are compared at once, so
/// that memory stays linear in n whatever the chunk.
struct BipartiteChunks {
  static constexpr bool sizes = true;
  static constexpr Index most_chunk = 1 << 16;  ///< larger ones than this are cut to it
  Index chunk = 64;
  float threshold = 0.75f;
  bool by_budget = true;

  bool free_size() const { return !by_budget; }

  Status find(const MergeCall& c, std::vector<Index>& drop, std::vector<MergePair>& pairs) const {
    const Index wanted = by_budget ? c.n - c.budget : c.n;
    if (c.n < 2 || wanted <= 0) return Done{};
    Work w(c);
    Index gone = 0;
    for (Index size = std::clamp<Index>(chunk, 2, most_chunk); gone < wanted;) {
      const Index taken = pass(c, w, size, wanted - gone);
      gone += taken;
      if (!by_budget) break;
      if (taken == 0) {
        if (size >= c.n) break;
        size = Index(std::min<long long>(2LL * size, c.n));
      }
    }
    std::vector<Index> losers;
    for (Index i = 0; i < c.n; ++i)
      if (w.into[std::size_t(i)] != i) {
        Index to = w.into[std::size_t(i)];
        while (w.into[std::size_t(to)] != to) to = w.into[std::size_t(to)];
        losers.push_back(i);
        pairs.push_back({i, to, w.similarity[std::size_t(i)]});
      }
    if (by_budget && gone < wanted) {  // only rows between guards are left: the least attended go
      std::vector<Index> rest;
      for (Index i = 0; i < c.n; ++i)
        if (w.into[std::size_t(i)] == i && !w.guarded(c, i)) rest.push_back(i);
      const Index over = std::min(wanted - gone, Index(rest.size()));
      std::stable_sort(rest.begin(), rest.end(), [&](Index a, Index b) { return c.score(a) < c.score(b); });
      rest.resize(std::size_t(over));
      std::sort(rest.begin(), rest.end());
      std::erase_if(pairs,
                    [&](const MergePair& p) { return std::binary_search(rest.begin(), rest.end(), p.dst); });
      detail::add_losers(losers, rest);
    }
    detail::add_losers(drop, losers);
    return Done{};
  }

 private:
  struct Edge {
    Index src, dst;
    float similarity;
  };
  static constexpr char takes_part = 0, is_guarded = 1, is_no_number = 2;
  static char part_of(std::span<const float> key) {
    return std::isfinite(detail::squared_norm(key)) ? takes_part : is_no_number;
  }
  struct Work {
    std::vector<Index> into;               // [n] where each row went; itself while it stays
    std::vector<float> similarity, count;  // [n]
    std::vector<float> keys;               // [n, dk] means of the members so far
    std::vector<char> part;                // [n] takes_part, or why it does not
    explicit Work(const MergeCall& c)
        : into(std::size_t(c.n)),
          similarity(std::size_t(c.n), 0.0f),
          count(std::size_t(c.n)),
          keys(c.keys.begin(), c.keys.begin() + std::ptrdiff_t(c.n) * c.dim_k),
          part(std::size_t(c.n)) {
      for (Index i = 0; i < c.n; ++i) {
        into[std::size_t(i)] = i;
        count[std::size_t(i)] = c.count(i);
        part[std::size_t(i)] = guarded(c, i) ? is_guarded : part_of(c.key(i));
      }
    }
    static bool guarded(const MergeCall& c, Index i) { return c.guards.holds(i, c.n) || i < c.shared_rows; }
    std::span<float> key(Index i, int d) {
      return std::span(keys).subspan(std::size_t(i) * std::size_t(d), std::size_t(d));
    }
  };

  static constexpr std::size_t block = 8;  // even entries that are compared at once

  /// One matching of all chunks of `size` rows; returns how many were folded, at most `most`.
  Index pass(const MergeCall& c, Work& w, Index size, Index most) const {
    std::vector<Edge> edges;
    std::vector<Index> even, odd;
    const std::size_t d = std::size_t(c.dim_k);
    for (Index first = 0; first < c.n; first = size < c.n - first ? first + size : c.n) {
      even.clear();
      odd.clear();
      Index place = 0;
      for (Index i = first; i < c.n && i - first < size; ++i)
        if (w.into[std::size_t(i)] == i && w.part[std::size_t(i)] != is_no_number)
          (place++ % 2 == 0 ? even : odd).push_back(i);
      std::erase_if(even, [&](Index i) { return w.part[std::size_t(i)] != takes_part; });
      std::erase_if(odd, [&](Index i) { return w.part[std::size_t(i)] != takes_part; });
      if (even.empty() || odd.empty()) continue;
      const std::size_t a = even.size(), b = odd.size();
      auto left = c.scratch->floats(a * d), right = c.scratch->floats(b * d),
           like = c.scratch->floats(std::min(a, block) * b);
      gather(c, w, even, left);
      gather(c, w, odd, right);
      for (std::size_t at = 0; at < a; at += block) {
        const std::size_t count = std::min(block, a - at);
        kernels::dot_group(rows(static_cast<const float*>(right.data()), Index(b), c.dim_k), &left[at * d],
                           int(count), 1.0f, like.data(), std::ptrdiff_t(b));
        for (std::size_t i = 0; i < count; ++i) {
          const auto row = like.subspan(i * b, b);
          // of equal ones the first; max_element's order holds as no row of these is NaN
          const std::size_t best = std::size_t(std::max_element(row.begin(), row.end()) - row.begin());
          if (by_budget || row[best] > threshold) edges.push_back({even[at + i], odd[best], row[best]});
        }
      }
    }
    const Index taken = std::min(most, Index(edges.size()));
    if (taken < Index(edges.size())) {
      std::nth_element(edges.begin(), edges.begin() + taken, edges.end(), [](const Edge& x, const Edge& y) {
        return x.similarity > y.similarity || (x.similarity == y.similarity && x.src < y.src);
      });
      edges.resize(std::size_t(taken));
    }
    std::sort(edges.begin(), edges.end(), [](const Edge& x, const Edge& y) { return x.src < y.src; });
    for (const Edge& e : edges) {
      w.into[std::size_t(e.src)] = e.dst;
      w.similarity[std::size_t(e.src)] = e.similarity;
      const float from = w.count[std::size_t(e.src)], to = w.count[std::size_t(e.dst)], all = from + to;
      const auto source = w.key(e.src, c.dim_k), target = w.key(e.dst, c.dim_k);
      for (std::size_t i = 0; i < d; ++i) target[i] = (to * target[i] + from * source[i]) / all;
      w.count[std::size_t(e.dst)] = all;
      w.part[std::size_t(e.dst)] = part_of(target);
    }
    return taken;
  }
  static void gather(const MergeCall& c, Work& w, const std::vector<Index>& rows_of, std::span<float> out) {
    for (std::size_t i = 0; i < rows_of.size(); ++i) {
      const auto key = w.key(rows_of[i], c.dim_k);
      std::copy(key.begin(), key.end(), out.begin() + std::ptrdiff_t(i * key.size()));
    }
    detail::to_unit(out, Index(rows_of.size()), c.dim_k);
  }
};

}  // namespace kvist::inline KVIST_ABI
