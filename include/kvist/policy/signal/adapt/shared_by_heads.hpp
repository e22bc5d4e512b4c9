#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Any signal with one score for all heads of a layer, the mean of theirs, so that all keep the same entries.
template <Signal Inner>
struct SharedByHeads : Inner {
  static constexpr Grain grain = Grain::layer;
};

}  // namespace kvist::inline KVIST_ABI
