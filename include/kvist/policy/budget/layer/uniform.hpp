#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Every layer gets the mean budget.
struct Uniform {
  static constexpr Role role = Role::layer_budget;
  static constexpr bool cascades = false;
  Status allocate(const LayerBudgetCall& call, std::span<Index> out) const {
    std::fill(out.begin(), out.end(), call.mean);
    return Done{};
  }
};
static_assert(LayerBudget<Uniform>);

}  // namespace kvist::inline KVIST_ABI
