#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by the newest query's attention, averaged over all query heads of the layer: one ranking for all heads.
/// Source: Oren et al. 2024, arXiv 2401.06104 (TOVA).
///
/// Needs: the last query (or its probabilities). State: none. Cost: G*n*dk multiply-adds a plan.
struct LastQuery {
  static constexpr Role role = Role::signal;
  static constexpr Grain grain = Grain::layer;
  using Entry = Nothing;
  using PerHead = Nothing;

  Wants wants() const { return {Needs::rows, Needs::rows, 1}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    if (out.empty()) return Done{};
    if (detail::window_size(c, 1) == 0)
      return Error{Errc::missing_evidence, "the newest query's attention is not in the evidence", 1, 0};
    const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
    auto row = c.scratch.floats(out.size());
    std::fill(out.begin(), out.end(), 0.0f);
    for (int g = 0; g < group; ++g) {
      detail::window_row(c, g, 1, 0, row);
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += row[i] / float(group);
    }
    return Done{};
  }
};
static_assert(Signal<LastQuery>);

}  // namespace kvist::inline KVIST_ABI
