#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/policy/detail/largest_remainder.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Are the numbers of one row of a table shares (not negative, one of them positive), or `entries` (whole numbers)?
inline Status check_table(std::span<const double> row, bool entries) {
  constexpr double most = 1 << 29;  // sums of a model's layers or heads stay far below 2^63
  double sum = 0;
  for (const double x : row) {
    if (!(x >= 0 && x <= most) || (entries && x != std::floor(x)))
      return Error{Errc::bad_option, "a table holds shares from 0 up, or whole numbers of entries",
                   (long long)most};
    sum += x;
  }
  if (!(sum > 0)) return Error{Errc::bad_option, "a table with no number above 0 shares nothing out"};
  return Done{};
}

/// Shares `total` out in proportion to `weights`, at least `least` each, to the entry. Requires: checked weights, and
/// least * weights.size() <= total.
inline void table_shares(std::span<const double> weights, long long total, Index least, std::span<Index> out) {
  const std::size_t n = weights.size();
  std::vector<double> share(n, double(least));
  std::vector<char> raised(n, 0);
  for (bool changed = true; changed;) {  // what the raised ones take comes from the others, in proportion
    changed = false;
    double left = double(total), weight = 0;
    for (std::size_t i = 0; i < n; ++i)
      (raised[i] ? left : weight) += raised[i] ? -double(least) : weights[i];
    for (std::size_t i = 0; i < n; ++i)
      if (!raised[i]) share[i] = weight > 0 ? left * weights[i] / weight : 0;
    for (std::size_t i = 0; i < n; ++i)
      if (!raised[i] && share[i] < double(least)) {
        share[i] = double(least);
        raised[i] = changed = true;
      }
  }
  largest_remainder(share, total, out);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
