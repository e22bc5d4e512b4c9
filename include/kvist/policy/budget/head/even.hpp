#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Every head of a layer gets the layer's mean.
struct EvenHeads {
  static constexpr Role role = Role::head_budget;
  static constexpr bool even = true;
  Status allocate(const HeadBudgetCall& call, std::span<Index> out) const {
    std::fill(out.begin(), out.end(), call.mean);
    return Done{};
  }
};
static_assert(HeadBudget<EvenHeads>);

}  // namespace kvist::inline KVIST_ABI
