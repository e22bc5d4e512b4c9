#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace kernels {
namespace detail {

/// The order of scores: larger first, NaN like -infinity, of equal ones the lower index first.
struct BetterScore {
  const float* scores;
  float value(Index i) const {
    const float s = scores[i];
    return s == s ? s : -std::numeric_limits<float>::infinity();
  }
  bool operator()(Index a, Index b) const {
    const float x = value(a), y = value(b);
    return x > y || (x == y && a < b);
  }
};

/// Reorders all [n] so that its first k are the best k, each part ascending.
inline void split_top(std::span<const float> scores, Index k, std::vector<Index>& all) {
  all.resize(scores.size());
  std::iota(all.begin(), all.end(), Index{0});
  if (k > 0 && k < Index(all.size()))
    std::nth_element(all.begin(), all.begin() + k, all.end(), BetterScore{scores.data()});
  std::sort(all.begin(), all.begin() + k);
  std::sort(all.begin() + k, all.end());
}

}  // namespace detail

/// The indices of the k largest scores, ascending; all of them where k >= n. Of equal scores the lower index is taken;
/// a NaN counts as -infinity. `out` is overwritten; its memory is used again, so that a caller who keeps it allocates
/// once. Requires: k >= 0.
inline void select_top(std::span<const float> scores, Index k, std::vector<Index>& out) {
  KVIST_ASSERT(k >= 0);
  const Index n = Index(scores.size());
  detail::split_top(scores, std::min(k, n), out);
  out.resize(std::size_t(std::min(k, n)));
}

/// The complement: the indices of all but the k largest scores, ascending (what an eviction drops to keep k).
inline void select_rest(std::span<const float> scores, Index k, std::vector<Index>& out) {
  KVIST_ASSERT(k >= 0);
  const Index n = Index(scores.size());
  detail::split_top(scores, std::min(k, n), out);
  out.erase(out.begin(), out.begin() + std::min(k, n));
}

/// The indices of the k smallest scores, ascending; of equal ones the higher index is taken, so that the lower stays:
/// exactly the rows that select_top(scores, n - k) leaves.
inline void select_bottom(std::span<const float> scores, Index k, std::vector<Index>& out) {
  KVIST_ASSERT(k >= 0);
  const Index n = Index(scores.size());
  select_rest(scores, n - std::min(k, n), out);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
