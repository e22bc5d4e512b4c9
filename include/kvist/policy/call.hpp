#pragma once
// SPDX-License-Identifier: Apache-2.0
// What goes into every call of a policy, whatever its parts.
#include <kvist/core/concepts.hpp>
#include <kvist/policy/dispose/fold.hpp>
#include <kvist/policy/schedule/schedule.hpp>

#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// What an engine can apply, given with every call: a plan never asks for more.
struct Abilities {
  unsigned makes = drops | blends | moves;
  /// May heads (layers) of one plan keep different entries? Where heads may not, each gets its layer's budget; where layers
  /// may not, all get the mean: shares of a policy's own are left aside, so that it stays of use there.
  Grain grain = Grain::head;
  Index page = 1;             ///< entries are freed in whole pages of this many rows
  bool equal_counts = false;  ///< all heads of a layer must keep equally many
  Index shared_rows = 0;      ///< rows [0, shared_rows) belong to other sequences too: never written or freed
};

/// One call of a policy for one layer.
template <LayerView L>
struct LayerCall {
  const L& view;                   ///< keys, values, positions of every KV head
  std::span<const Evidence> seen;  ///< [kv_heads]; empty where wants() asks for nothing
  Clock now;
  int layer = 0;
  Abilities can = {};
  const RopeTable* rope = nullptr;
};

/// Settings that every policy has, whatever its parts.
struct PolicySettings {
  Guards at_least;               ///< entries kept besides the guard part's own (the larger of both counts)
  std::vector<int> skip_layers;  ///< layers left whole; they stand outside the budget
  /// Ask for queries, and state with each plan what it gives up (unknown where one choice holds for the sequence).
  bool account_loss = false;
  float tolerance = 0;  ///< > 0: instead of a budget, the smallest set whose bound (HeadCost::bound) holds
  ChosenSchedule schedule{};  ///< when to plan; the schedule part decides unless one is chosen here
  /// Newest entries that stay on top of everything: Clock::budget counts them, the guard part sees the rest of the budget,
  /// and its `recent` (as at_least's) protects the entries before them. For a question that is its prompt's end.
  Index on_top = 0;
  Fold merge = Fold::none;  ///< what becomes of entries that the policy would drop
};

}  // namespace kvist::inline KVIST_ABI
