#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/select.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Keeps the guarded entries and, of the others, those with the highest scores; of equal scores the lower row stays.
///
/// Cost: two passes over the scores.
struct TopK {
  static constexpr Role role = Role::selector;
  void select(const SelectCall& call, std::vector<Index>& drop) const {
    const Index n = call.size(), lo = std::min(call.guards.sinks, n), hi = std::max(lo, n - call.guards.recent);
    const Index losers = std::clamp<Index>(n - call.budget, 0, hi - lo);
    kernels::select_bottom(call.scores.subspan(std::size_t(lo), std::size_t(hi - lo)), losers, drop, lo);
  }
};
static_assert(Selector<TopK>);

}  // namespace kvist::inline KVIST_ABI
