#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

namespace kvist::inline KVIST_ABI {

/// Prefers newer entries: score = position. With sinks as the guard this is StreamingLLM's rule, without a plain window.
///
/// Needs: nothing. State: none. Cost: n.
struct Recency {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;

  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    // Rows ascend by position, so the row ranks alike and stays exact in f32 up to 2^24 entries.
    for (Index i = 0; i < c.size(); ++i) out[std::size_t(i)] = float(i);
    return Done{};
  }
};
static_assert(Signal<Recency>);

}  // namespace kvist::inline KVIST_ABI
