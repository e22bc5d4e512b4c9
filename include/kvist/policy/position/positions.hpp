#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Attention goes on with the true positions: rotated keys stay as they are.
struct KeepPositions {
  static constexpr Role role = Role::positions;
  static constexpr bool compact = false;
};

/// Attention sees the survivors as if they lay side by side: row i has position i, the query that of its own row.
/// The cache then stores raw keys and rotates them by their row when it reads them.
struct CompactPositions {
  static constexpr Role role = Role::positions;
  static constexpr bool compact = true;
};
static_assert(Positions<KeepPositions> && Positions<CompactPositions>);

}  // namespace kvist::inline KVIST_ABI
