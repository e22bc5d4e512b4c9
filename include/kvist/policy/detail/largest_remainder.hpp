#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Whole numbers that add up to `total`: the shares rounded down, and one more for those with the largest remainders (of
/// equal ones the lower index). Requires: shares >= 0 that add up to about `total`. A share is exceeded by less than 1.
inline void largest_remainder(std::span<const double> shares, long long total, std::span<Index> out) {
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  long long left = total;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    out[i] = Index(std::floor(shares[i] + 1e-9));
    left -= out[i];
  }
  const auto rest = [&](std::size_t i) { return shares[i] - double(out[i]); };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rest(a) > rest(b) + 1e-9; });
  for (std::size_t i = 0; i < order.size() && left > 0; ++i, --left) ++out[order[i]];
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
