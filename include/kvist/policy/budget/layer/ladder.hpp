#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/largest_remainder.hpp>

#include <algorithm>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Budgets that fall by equal steps from the first layer to the last.
///
/// Of the mean budget B, the guarded entries g go to every layer; of base = B - g the last layer gets lo = base / beta and
/// the first hi = 2 base - lo. Where hi is more than there is to choose from (T - g), hi = T - g and lo = 2 base - hi; a
/// prompt with T < 2 base gets base everywhere. Divisions round down.
/// `exact`: the steps are shared out so that the layers' sum is layers * B. Otherwise the step itself is rounded down, as in the official code, and the sum exceeds
/// that.
/// Source: Cai et al. 2024, arXiv 2406.02069 (PyramidKV); Zefan-Cai/KVCache-Factory, pyramidkv_utils.py.
struct Ladder {
  static constexpr Role role = Role::layer_budget;
  static constexpr bool cascades = false;
  int beta = 20;
  bool exact = true;

  Status allocate(const LayerBudgetCall& call, std::span<Index> out) const {
    if (beta < 1) return Error{Errc::bad_option, "beta divides the budget and is at least 1", 1, beta};
    const Index guarded = call.guards.sinks + call.guards.recent, base = call.mean - guarded;
    // One T for all layers, also when a later turn finds them of unlike sizes.
    const Index n = std::max(call.seen.back().size, call.seen.back().tokens);
    if (base < 0 || n < 2 * base || call.layers == 1) {
      std::fill(out.begin(), out.end(), call.mean);
      return Done{};
    }
    const std::vector<Index> all = context(call.layers, base, n - guarded);
    for (std::size_t l = 0; l < out.size(); ++l) out[l] = guarded + all[l];
    return Done{};
  }

  /// Entries of each layer besides the guarded ones: `base` on average, none more than `choice`. Requires: layers > 1.
  std::vector<Index> context(int layers, Index base, Index choice) const {
    Index lo = base / beta, hi = 2 * base - lo;
    if (hi >= choice) {
      hi = choice;
      lo = 2 * base - hi;
    }
    std::vector<Index> out(std::size_t(layers), 0);
    if (!exact) {
      const Index step = (hi - lo) / (layers - 1);
      for (int l = 0; l < layers; ++l) out[std::size_t(l)] = hi - l * step;
      return out;
    }
    std::vector<double> shares;
    for (int l = 0; l < layers; ++l) shares.push_back(hi - double(l) * (hi - lo) / (layers - 1));
    detail::largest_remainder(shares, (long long)base * layers, out);
    return out;
  }
};
static_assert(LayerBudget<Ladder>);

}  // namespace kvist::inline KVIST_ABI
