#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>

namespace kvist::inline KVIST_ABI {

/// Keeps entries whose keys are short: score = -|k|_2.
///
/// Short keys tend to attract much attention, so the norm ranks entries without any attention weights.
/// Source: Devoto et al. 2024, arXiv 2406.11430.
///
/// Needs: keys (rotation does not change a norm). State: none. Cost: n*dk multiply-adds a plan.
struct KeyNorm {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;

  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    c.head.keys.for_each_run([&](auto run, Index first) { kernels::norms(run, out.data() + first); });
    for (float& s : out) s = -s;
    return Done{};
  }
};
static_assert(Signal<KeyNorm>);

}  // namespace kvist::inline KVIST_ABI
