#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/types.hpp>
#include <kvist/kernels/dispatch.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// The k-th largest of some scores, and how many equal to it are among the k largest.
struct Threshold {
  float value = 0;
  Index equal = 0;
  bool found = false;
};
inline constexpr Index select_samples = 1024;      ///< scores that bracket the threshold, at most
inline constexpr Index select_candidates = 12288;  ///< scores in between that are held on the stack
inline constexpr Index select_lanes = 16;          ///< of any instruction set, at most

/// Between which ranks of a sample the k-th of n scores lies but for one case in some hundred: three deviations on each
/// side. samples 0: so few scores that no sample is worth it.
struct Bracket {
  Index samples = 0, rank = 0, margin = 0;
  Bracket(Index n, Index k) {
    if (n <= 2 * select_samples) return;
    samples = n >= 16 * select_samples ? select_samples : select_samples / 4;
    const double share = double(k) / double(n);
    rank = Index(share * double(samples));
    margin = Index(3 * std::sqrt(double(samples) * share * (1 - share))) + 3;
  }
  /// How many scores to expect in it, and a third more.
  Index candidates(Index n) const {
    return samples == 0 ? n : Index((long long)n * (2 * margin + 1) / samples * 4 / 3);
  }
};

/// One of these per instruction set.
struct SelectTable {
  Threshold (*threshold)(const float* x, Index n, Index k, const Bracket& b, float* room, Index most);
  Index (*pick)(const float* x, Index n, const Threshold& t, bool rest, Index first, Index* out);
  Index lanes;
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::SelectTable& select_table();

namespace detail {

/// Requires: 1 <= k <= n.
inline Threshold threshold_of(std::span<const float> scores, Index k) {
  const Index n = Index(scores.size());
  constexpr Index fixed = 3 * select_samples + select_lanes;
  Threshold t;
  const Bracket bracket(n, k);
  const Index most = std::min(n, bracket.candidates(n));
  if (most <= select_candidates) {
    float room[fixed + select_candidates];
    t = select_table().threshold(scores.data(), n, k, bracket, room, select_candidates);
  } else {
    std::vector<float> room(std::size_t(fixed) + std::size_t(most));
    t = select_table().threshold(scores.data(), n, k, bracket, room.data(), most);
  }
  if (t.found) return t;
  std::vector<float> all(scores.begin(), scores.end());  // a sample that told little: hardly ever
  for (float& x : all) x = x == x ? x : -std::numeric_limits<float>::infinity();
  std::nth_element(all.begin(), all.begin() + (k - 1), all.end(), std::greater<>());
  t = {all[std::size_t(k - 1)], 0, true};
  for (Index i = 0; i < k; ++i) t.equal += all[std::size_t(i)] == t.value;
  return t;
}

inline void select(std::span<const float> scores, Index k, bool rest, Index first, std::vector<Index>& out) {
  const Index n = Index(scores.size()), count = rest ? n - k : k;
  if (count == 0) return out.clear();
  if (count == n) {
    out.resize(scores.size());
    return std::iota(out.begin(), out.end(), first);
  }
  const Threshold t = threshold_of(scores, k);
  out.resize(std::size_t(count + select_lanes));
  [[maybe_unused]] const Index found = select_table().pick(scores.data(), n, t, rest, first, out.data());
  KVIST_ASSERT(found == count);
  out.resize(std::size_t(count));
}

}  // namespace detail

/// The indices of the k largest scores, ascending; all of them where k >= n. Of equal scores the lower index is taken;
/// a NaN counts as -infinity. `out` is overwritten; its memory is used again, so that a caller who keeps it allocates
/// once. `first` is added to every index. Requires: k >= 0.
///
/// A sample of the scores brackets the k-th largest, one pass counts what is above and collects what lies between, and a
/// second writes the indices, without sorting any. Where the sample misleads (which it says), all scores are looked
/// through; the result is the same. Cost: two passes over the scores.
inline void select_top(std::span<const float> scores, Index k, std::vector<Index>& out, Index first = 0) {
  KVIST_ASSERT(k >= 0);
  detail::select(scores, std::min(k, Index(scores.size())), false, first, out);
}

/// The complement: the indices of all but the k largest scores, ascending (what an eviction drops to keep k).
inline void select_rest(std::span<const float> scores, Index k, std::vector<Index>& out, Index first = 0) {
  KVIST_ASSERT(k >= 0);
  detail::select(scores, std::min(k, Index(scores.size())), true, first, out);
}

/// The indices of the k smallest scores, ascending; of equal ones the higher index is taken, so that the lower stays:
/// exactly the rows that select_top(scores, n - k) leaves.
inline void select_bottom(std::span<const float> scores, Index k, std::vector<Index>& out, Index first = 0) {
  KVIST_ASSERT(k >= 0);
  const Index n = Index(scores.size());
  select_rest(scores, n - std::min(k, n), out, first);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/select_table.ipp>
#endif
