#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/largest_remainder.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Gives layers with flat attention more: shares of the whole budget are softmax(-variance) over all layers, at least
/// `least` of a layer's entries and at most all of them.
///
/// All layers must have been seen, so that nothing is planned before the first decode step; the shares then stay. `exact`
/// hands out the whole budget to the entry (what a layer cannot hold goes to the others, in proportion); else each layer's
/// heavy and recent parts are rounded down by themselves, as the published code does it.
/// Source: Wan et al. 2025, arXiv 2406.13035 (D2O); AIoT-MLSys-Lab/D2O, modeling_llama3_new.py.
///
/// Needs: a signal whose layer_stat tells a variance. Cost: layers^2 numbers a sequence.
struct SoftmaxOfVariance {
  static constexpr Role role = Role::layer_budget;
  static constexpr bool cascades = false;
  static constexpr bool whole = true;
  double least = 0.01;
  double recent_share = 0.5;  ///< of a layer's entries, for the published rounding
  Index floor = 1;            ///< entries that each layer keeps, or what its guards need if that is more
  bool exact = true;

  /// softmax(-v) times `total`.
  static void shares(std::span<const double> variance, double total, std::span<double> out) {
    double low = variance.empty() ? 0 : variance[0], sum = 0;
    for (const double v : variance) low = std::min(low, v);
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] = std::exp(low - variance[i]);
    for (double& x : out) x *= total / sum;
  }

  Status allocate(const LayerBudgetCall& call, std::span<Index> out) const {
    const std::size_t n = call.seen.size();
    std::vector<double> variance, share(n);
    for (const LayerStat& s : call.seen) variance.push_back(std::isfinite(s.variance) ? s.variance : 0.0);
    const double total = double(call.mean) * double(n);
    shares(variance, total, share);
    std::vector<double> low, high;
    for (const LayerStat& s : call.seen) {
      high.push_back(s.size > 0 ? std::max(double(s.size), double(call.mean)) : total);
      low.push_back(std::min(std::max({least * double(s.size), double(floor), double(call.least)}),
                             std::min(double(call.mean), high.back())));
    }
    if (!exact) {
      for (std::size_t i = 0; i < n; ++i) {
        const double x = std::clamp(share[i], low[i], high[i]);
        out[i] =
            std::max(Index(x * recent_share) + Index(x * (1 - recent_share)), std::min(call.least, Index(x)));
      }
      return Done{};
    }
    // What the limits take or give is shared out among the layers that are inside theirs.
    std::vector<char> set(n, 0);
    for (bool changed = true; changed;) {
      changed = false;
      double left = total, weight = 0;
      for (std::size_t i = 0; i < n; ++i)
        (set[i] ? left : weight) += set[i] ? -share[i] : std::exp(-variance[i]);
      double over = 0;
      for (std::size_t i = 0; i < n; ++i)
        if (!set[i]) {
          share[i] = weight > 0 ? left * std::exp(-variance[i]) / weight : 0;
          over += std::max(0.0, share[i] - high[i]) - std::max(0.0, low[i] - share[i]);
        }
      for (std::size_t i = 0; i < n; ++i)
        if (!set[i] && (over >= 0 ? share[i] > high[i] : share[i] < low[i])) {
          share[i] = over >= 0 ? high[i] : low[i];
          set[i] = changed = true;
        }
      if (!changed)
        for (std::size_t i = 0; i < n; ++i)
          if (!set[i] && (share[i] > high[i] || share[i] < low[i])) {
            share[i] = std::clamp(share[i], low[i], high[i]);
            set[i] = changed = true;
          }
    }
    double sum = 0;
    for (const double x : share) sum += x;
    detail::largest_remainder(share, (long long)std::floor(std::min(sum, total) + 1e-6), out);
    return Done{};
  }
};
static_assert(LayerBudget<SoftmaxOfVariance>);

}  // namespace kvist::inline KVIST_ABI
