#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Losers move to another tier of their head, where they are stored more coarsely; nothing is dropped.
/// Source: Yang et al. 2024, arXiv 2402.18096 (MiKV).
struct Demote {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = moves;
  std::uint8_t tier = 1;

  template <Head H>
  Status dispose(const HeadContext<H>&, std::span<const float>, HeadPlan& plan) const {
    for (const Index i : plan.drop) plan.move.push_back({i, tier});
    plan.drop.clear();
    return Done{};
  }
};
static_assert(Disposition<Demote>);

}  // namespace kvist::inline KVIST_ABI
