#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Losers are dropped: what most eviction methods do.
struct Drop {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops;
  template <Head H>
  Status dispose(const HeadContext<H>&, std::span<const float>, HeadPlan&) const {
    return Done{};
  }
};
static_assert(Disposition<Drop>);

}  // namespace kvist::inline KVIST_ABI
