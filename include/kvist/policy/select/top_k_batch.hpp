#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/select/top_k.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// As TopK, but an event over the budget drops at least `batch` entries, so that events are rarer; fewer where the guards
/// leave fewer.
struct TopKBatch {
  static constexpr Role role = Role::selector;
  Index batch = 1;
  void select(const SelectCall& call, std::vector<Index>& drop) const {
    const Index n = call.size();
    drop.clear();
    if (n <= call.budget) return;
    SelectCall ask{
        call.scores,  call.pos,   call.guards, std::min(call.budget, std::max<Index>(0, n - batch)),
        call.scratch, call.layer, call.head};
    TopK{}.select(ask, drop);
  }
};
static_assert(Selector<TopKBatch>);

}  // namespace kvist::inline KVIST_ABI
