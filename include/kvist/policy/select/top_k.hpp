#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <numeric>

namespace kvist::inline KVIST_ABI {

/// Keeps the guarded entries and, of the others, those with the highest scores; of equal scores the lower row stays.
///
/// Cost: O(n) expected, and sorting the losers' rows.
struct TopK {
  static constexpr Role role = Role::selector;
  void select(const SelectCall& call, std::vector<Index>& drop) const {
    const Index n = call.size(), lo = std::min(call.guards.sinks, n), hi = std::max(lo, n - call.guards.recent);
    const Index losers = std::clamp<Index>(n - call.budget, 0, hi - lo);
    drop.clear();
    if (losers == 0) return;
    drop.resize(std::size_t(hi - lo));
    std::iota(drop.begin(), drop.end(), lo);
    const auto worse = [&](Index a, Index b) {
      const float sa = call.scores[std::size_t(a)], sb = call.scores[std::size_t(b)];
      return sa < sb || (sa == sb && a > b);
    };
    std::nth_element(drop.begin(), drop.begin() + losers - 1, drop.end(), worse);
    drop.resize(std::size_t(losers));
    std::sort(drop.begin(), drop.end());
  }
};
static_assert(Selector<TopK>);

}  // namespace kvist::inline KVIST_ABI
