#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <numeric>

namespace kvist::inline KVIST_ABI {

/// Keeps chunks of `chunk` consecutive entries, those with the highest mean score (of equal ones the
/// earlier), so that what belongs together stays together. The last chunk may be shorter and counts by its
/// own mean.
///
/// The first chunk that does not fit in the budget any more is cut to its best entries (`exact`); so is the
/// only chunk of a head shorter than one. Without it, whole chunks as the reference does it: floor(chunks *
/// budget / n) of them, at least one, which seldom meets the budget and may pass it by part of a chunk.
/// Guarded entries stay besides. Chunks count rows, which are positions in a prompt that was not cut before.
/// Source: Liu et al. 2025, arXiv 2502.00299 (ChunkKV); NVIDIA/kvpress, ChunkKVPress.
///
/// Cost: O(n) and sorting n / chunk means.
struct Chunks {
  static constexpr Role role = Role::selector;
  Index chunk = 20;
  bool exact = true;

  void select(const SelectCall& call, std::vector<Index>& drop) const {
    const Index n = call.size(), size = std::clamp<Index>(chunk, 1, std::max<Index>(1, n)),
                count = (n + size - 1) / size;
    drop.clear();
    if (n <= call.budget) return;
    std::vector<double> mean(std::size_t(count), 0.0);
    for (Index i = 0; i < n; ++i)
      mean[std::size_t(i / size)] += double(call.scores[std::size_t(i)]) / std::min(size, n - i / size * size);
    std::vector<Index> order(std::size_t(count), 0);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return mean[std::size_t(a)] > mean[std::size_t(b)]; });

    Index guarded = 0;
    for (Index i = 0; i < n; ++i) guarded += call.guards.holds(i, n);
    Index left = std::max<Index>(0, call.budget - guarded);
    const Index whole = exact ? 0 : std::max<Index>(1, Index((long long)count * call.budget / n));
    for (std::size_t r = 0; r < order.size(); ++r) {
      const Index first = order[r] * size, last = std::min(n, first + size);
      if (!exact) {
        if (Index(r) >= whole) lose(call, first, last, last - first, drop);
        continue;
      }
      Index free = 0;
      for (Index i = first; i < last; ++i) free += !call.guards.holds(i, n);
      const Index kept = std::min(free, left);
      lose(call, first, last, free - kept, drop);
      left -= kept;
    }
    std::sort(drop.begin(), drop.end());
  }

 private:
  /// Adds the `losers` lowest unguarded rows of a chunk.
  static void lose(const SelectCall& call, Index first, Index last, Index losers, std::vector<Index>& drop) {
    const std::size_t begin = drop.size();
    for (Index i = first; i < last; ++i)
      if (!call.guards.holds(i, call.size())) drop.push_back(i);
    if (std::size_t(losers) >= drop.size() - begin) return;
    std::sort(drop.begin() + std::ptrdiff_t(begin), drop.end(), [&](Index a, Index b) {
      const float sa = call.scores[std::size_t(a)], sb = call.scores[std::size_t(b)];
      return sa < sb || (sa == sb && a > b);
    });
    drop.resize(begin + std::size_t(losers));
  }
};
static_assert(Selector<Chunks>);

}  // namespace kvist::inline KVIST_ABI
