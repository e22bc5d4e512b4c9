#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Chooses nobody: for dispositions that decide by themselves how many entries stay.
struct ChooseNone {
  static constexpr Role role = Role::selector;
  void select(const SelectCall&, std::vector<Index>& drop) const { drop.clear(); }
};
static_assert(Selector<ChooseNone>);

}  // namespace kvist::inline KVIST_ABI
