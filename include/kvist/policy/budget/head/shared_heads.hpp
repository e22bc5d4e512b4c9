#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/largest_remainder.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Heads compete for the layer's entries: all heads' best heads * base scores are taken together, and a head's budget
/// blends how many of them are its own with an even share: count * (1 - floor) + base * floor, besides its guards.
///
/// Scores of different heads must be comparable (probabilities). `normalise` first multiplies a head's scores by the share of
/// its total that its best `base` hold. `exact`: the shares are rounded so that the sum is heads * base. Otherwise each is
/// rounded by itself (half to even, the floor cut to a whole number first), as in the official code, and the sum drifts by a
/// few entries (base 3, counts 5 and 1, floor .2: 4 + 1 = 5, not 6).
/// Source: Feng et al. 2024, arXiv 2407.11550 (Ada-KV); FFY0/AdaKV, adaptive_snapkv/monkeypatch/snapkv_utils.py.
struct SharedHeads {
  static constexpr Role role = Role::head_budget;
  static constexpr bool even = false;
  double floor = 0.2;
  bool normalise = false;
  bool exact = true;

  Status allocate(const HeadBudgetCall& call, std::span<Index> out) const {
    if (!(floor >= 0 && floor <= 1))
      return Error{Errc::bad_option, "the floor is a share of the even budget, 0 to 1"};
    const Index guarded = call.guards.sinks + call.guards.recent, base = call.mean - guarded;
    const std::size_t heads = out.size();
    if (base <= 0) {
      std::fill(out.begin(), out.end(), call.mean);
      return Done{};
    }
    struct Item {
      float score;
      Index head;
    };
    std::vector<Item> all;
    std::vector<float> sorted;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::span<const float> s = call.scores[h];
      const Index n = Index(s.size()), context = std::max<Index>(0, n - guarded);
      const std::span<const float> mine =
          s.subspan(std::size_t(std::min(call.guards.sinks, n)), std::size_t(context));
      float factor = 1;
      if (normalise) {
        sorted.assign(mine.begin(), mine.end());
        const auto best = sorted.begin() + std::min<Index>(base, context);
        std::partial_sort(sorted.begin(), best, sorted.end(), std::greater<>());
        double top = 0, sum = 0;
        for (auto it = sorted.begin(); it != sorted.end(); ++it) (it < best ? top : sum) += double(*it);
        factor = top + sum > 0 ? float(top / (top + sum)) : 1.0f;
      }
      for (const float x : mine) all.push_back({x * factor, Index(h)});
    }
    const std::size_t take = std::min(all.size(), heads * std::size_t(base));
    // Of equal scores the lower head wins; all holds heads in order, so a stable order of indices decides.
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::nth_element(order.begin(), order.begin() + std::ptrdiff_t(take), order.end(),
                     [&](std::size_t a, std::size_t b) {
                       return all[a].score > all[b].score || (all[a].score == all[b].score && a < b);
                     });
    std::vector<Index> count(heads, 0);
    for (std::size_t i = 0; i < take; ++i) ++count[std::size_t(all[order[i]].head)];
    if (!exact) {
      const double even_part = std::floor(base * floor);
      for (std::size_t h = 0; h < heads; ++h)
        out[h] = guarded + Index(std::nearbyint(count[h] * (1 - floor) + even_part));
      return Done{};
    }
    std::vector<double> shares(heads);
    for (std::size_t h = 0; h < heads; ++h) shares[h] = count[h] * (1 - floor) + base * floor;
    detail::largest_remainder(shares, (long long)take, out);
    for (Index& b : out) b += guarded;
    return Done{};
  }
};
static_assert(HeadBudget<SharedHeads>);

}  // namespace kvist::inline KVIST_ABI
