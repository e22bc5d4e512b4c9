#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Always keeps the first `sinks` and the newest `recent` entries, counted inside the budget.
struct KeepEnds {
  static constexpr Role role = Role::guard;
  Index sinks = 0, recent = 0;
  Guards resolve(Index) const { return {sinks, recent}; }
};
static_assert(Guard<KeepEnds>);

/// Keeps the newest entries as a share of the budget: recent = budget - floor(budget * heavy_share), or fixed counts
/// where `recent` is given.
struct KeepRecentShare {
  static constexpr Role role = Role::guard;
  double heavy_share = 0.5;
  Index recent = -1;  ///< entries; -1: by share
  Guards resolve(Index budget) const {
    return {0, recent >= 0 ? recent : budget - Index(double(budget) * heavy_share)};
  }
};
static_assert(Guard<KeepRecentShare>);

}  // namespace kvist::inline KVIST_ABI
