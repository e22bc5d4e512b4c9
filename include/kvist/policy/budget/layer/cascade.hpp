#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {

/// Gives each layer a share of the budget by how dispersed (entropy) and how unstable over queries (variance)
/// its attention is: preference = entropy^(1/tau1) * variance^(1/tau2). With `cascade` the shares of all
/// layers seen so far are settled after each layer of the prompt, and earlier layers are cut again, so that
/// never more than the whole budget and one layer are held; without it layers stay whole until the last one
/// has been seen.
///
/// Guards stand outside the shares: (mean - guards) * layers entries are shared out, rounded down; what a
/// layer cannot hold goes in equal parts to those that can take more, and so does the rest of the rounding,
/// the shallowest first. The published code does each of these once, and what a layer then has too much is
/// lost; `exact` goes on until all is spent. A share may rise when a later layer wants little; entries that
/// are gone do not come back, so the layers can hold less than the budget at first (their recorded budgets
/// let them grow to it while decoding). A prompt within the budget is left whole, each layer at the mean. The
/// published code also leaves prompts whole that exceed the budget by less than the window.
/// Source: Qin et al. 2025, arXiv 2503.12491 (CAKE); official code antgroup/cakekv, cake/utils.py.
///
/// Needs: a signal with layer_stat. Cost: layers^2 numbers a prompt, and a selection of all earlier layers a
/// layer.
struct Cascade {
  static constexpr Role role = Role::layer_budget;
  static constexpr bool cascades = true;
  double tau1 = 1, tau2 = 1;
  bool cascade = true;
  bool exact = true;

  Status allocate(const LayerBudgetCall& call, std::span<Index> out) const {
    const Index fixed = call.guards.sinks + call.guards.recent;
    Index longest = 0;
    for (const LayerStat& s : call.seen) longest = std::max(longest, s.size);
    if (longest <= call.mean) {
      std::fill(out.begin(), out.end(), call.mean);
      return Done{};
    }
    if (fixed > call.mean)
      return Error{Errc::bad_budget,
                   "the guarded entries (sinks and recent) do not fit in the mean budget of a layer", fixed,
                   call.mean};
    if (!cascade && int(call.seen.size()) < call.layers) {
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::max(call.seen[i].size, call.mean);
      return Done{};
    }
    std::vector<double> preference;
    std::vector<Index> room;
    for (const LayerStat& s : call.seen) {
      preference.push_back(std::pow(s.entropy, 1 / tau1) * std::pow(s.variance, 1 / tau2));
      room.push_back(std::max<Index>(0, s.size - fixed));
    }
    share((long long)(call.mean - fixed) * call.layers, preference, room, out);
    for (Index& b : out) b += fixed;
    return Done{};
  }

  /// Splits `total` over layers in proportion to `preference`, at most `room` each.
  void share(long long total, std::vector<double> preference, std::span<const Index> room,
             std::span<Index> out) const {
    double sum = 0;
    for (double& p : preference) sum += p = std::isfinite(p) ? std::max(p, 0.0) : 0.0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double part = sum > 0 ? preference[i] / sum : 1.0 / double(out.size());
      out[i] = Index(std::min(part * double(total), 1e9));
    }
    long long excess = clip(room, out);
    do {
      spread(excess, room, out);
      long long rest = total;
      for (const Index b : out) rest -= b;
      spread(rest, room, out);
      excess = clip(room, out);
    } while (exact && excess > 0);  // ends: each round fills a layer more
  }

 private:
  /// Cuts every layer to its room; returns what was cut off in all.
  static long long clip(std::span<const Index> room, std::span<Index> out) {
    long long excess = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      excess += std::max<Index>(0, out[i] - room[i]);
      out[i] = std::min(out[i], room[i]);
    }
    return excess;
  }
  /// Gives `amount` in equal parts to the layers with room left, the remainder to the first of them.
  static void spread(long long amount, std::span<const Index> room, std::span<Index> out) {
    std::vector<std::size_t> takers;
    for (std::size_t i = 0; i < out.size(); ++i)
      if (out[i] < room[i]) takers.push_back(i);
    if (takers.empty() || amount <= 0) return;
    const long long count = (long long)takers.size();
    for (long long t = 0; t < count; ++t)
      out[takers[std::size_t(t)]] +=
          Index(std::min(amount / count + (t < amount % count ? 1 : 0), 1'000'000'000LL));
  }
};
static_assert(LayerBudget<Cascade>);

}  // namespace kvist::inline KVIST_ABI
