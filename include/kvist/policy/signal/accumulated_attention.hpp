#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/softmax.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by the attention they have received from all queries so far, summed over the query group.
///
/// The sum favours old entries, which more queries could see; `normalise` divides by the number of queries that could see
/// the entry. Sum and mean over the group rank alike.
/// Source: Zhang et al. 2023, arXiv 2306.14048 (H2O); normalised form: NVIDIA/kvpress, ObservedAttentionPress.
///
/// Needs: column sums of each prompt call, probabilities of each step. State: two floats an entry. Cost: n*G a step.
struct AccumulatedAttention {
  static constexpr Role role = Role::signal;
  struct Entry {
    float sum = 0;   ///< attention received, mean over the group
    float seen = 0;  ///< queries that could see the entry
  };
  using PerHead = Nothing;
  bool normalise = false;

  Wants wants() const { return {Needs::column_sums, Needs::probs, 0}; }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead&) const {
    const bool prompt = c.now.phase == Phase::prefill;
    const Cube& rows = prompt ? c.seen.column_sums : c.seen.probs;
    const float share = 1.0f / float(rows.g);
    static_assert(sizeof(Entry) == 2 * sizeof(float));
    if (entries.empty()) return Done{};
    for (Index w = 0; w < rows.w; ++w)
      kernels::add_to_pairs(rows.row(0, w).data(), rows.g, rows.stride_g, Index(entries.size()), share,
                            prompt ? c.seen.seen_by.data() : nullptr, &entries[0].sum);
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    for (std::size_t i = 0; i < entries.size(); ++i)
      out[i] = normalise ? entries[i].sum / std::max(entries[i].seen, 1.0f) : entries[i].sum;
    return Done{};
  }
  /// What was folded into an entry attends through it from now on.
  static void fold(Entry& into, const Entry& from) {
    into.sum += from.sum;
    into.seen = std::max(into.seen, from.seen);
  }
};
static_assert(Signal<AccumulatedAttention>);

}  // namespace kvist::inline KVIST_ABI
