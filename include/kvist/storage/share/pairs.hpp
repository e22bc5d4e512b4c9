#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>

namespace kvist::inline KVIST_ABI {

/// Which layers share their storage two by two: (start, start + 1), (start + 2, start + 3), ... A layer left over at the end
/// stays by itself, as do those before the start.
/// Source: Liu et al. 2024, arXiv 2405.14366 (MiniCache): from the middle of the model's depth on.
struct Pairs {
  enum class Place : std::uint8_t { alone, lower, upper };
  int start = -1;  ///< -1: half of the layers

  int first(int layers) const { return start < 0 ? layers / 2 : start; }
  Place place(int layer, int layers) const {
    const int from = layer - first(layers);
    if (from < 0) return Place::alone;
    if (from % 2 == 1) return Place::upper;
    return layer + 1 < layers ? Place::lower : Place::alone;
  }
  /// Fails with: bad_option.
  Status validate(int layers) const {
    if (start < -1 || start >= layers)
      return Error{Errc::bad_option, "start names a layer that the model lacks (-1: half of its depth)",
                   layers, start};
    return Done{};
  }
};

}  // namespace kvist::inline KVIST_ABI
