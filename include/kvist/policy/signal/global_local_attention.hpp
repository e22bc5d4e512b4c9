#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by the larger of the attention they received from all queries of the prompt and from its last `window`
/// ones, the first scaled so that both have one mean. So what matters to the question counts beside what mattered all along.
///
/// Sums are means over the query group. The alignment of means is published; that the larger counts is how others describe it.
/// Source: arXiv 2412.08521 (EMS).
///
/// Needs: column sums and the last queries of the prompt. State: two floats an entry. Cost: window*G*n*dk a prompt.
struct GlobalLocalAttention {
  static constexpr Role role = Role::signal;
  struct Entry {
    float global = 0, local = 0;
  };
  using PerHead = Nothing;
  Index window = 32;

  Wants wants() const { return {Needs::column_sums | Needs::rows, Needs::none, window}; }
  Status validate(const Shape&) const {
    if (window < 1 || window > 1 << 16)
      return Error{Errc::bad_option, "window counts queries, 1 to 65536", 1, window};
    return Done{};
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead&) const {
    if (c.now.phase != Phase::prefill) return Done{};
    const Cube& sums = c.seen.column_sums;
    const float share = 1.0f / float(sums.g);
    for (int g = 0; g < sums.g; ++g)
      for (std::size_t i = 0; i < entries.size(); ++i) entries[i].global += share * sums.row(g, 0)[i];
    for (Entry& e : entries) e.local = 0;
    auto row = c.scratch.floats(entries.size());
    const Index w = detail::window_size(c, window);
    for (int g = 0; g < sums.g; ++g)
      for (Index i = 0; i < w; ++i) {
        detail::window_row(c, g, w, i, row);
        for (std::size_t j = 0; j < entries.size(); ++j) entries[j].local += share * row[j];
      }
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    double global = 0, local = 0;
    for (const Entry& e : entries) global += double(e.global), local += double(e.local);
    const double by = global > 0 ? local / global : 0;
    for (std::size_t i = 0; i < entries.size(); ++i)
      out[i] = std::max(float(double(entries[i].global) * by), entries[i].local);
    return Done{};
  }
  /// What was folded into an entry attends through it from now on.
  static void fold(Entry& into, const Entry& from) { into.global += from.global, into.local += from.local; }
};
static_assert(Signal<GlobalLocalAttention>);

}  // namespace kvist::inline KVIST_ABI
