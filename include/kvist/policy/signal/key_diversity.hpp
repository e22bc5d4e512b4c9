#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {

/// Keeps entries whose keys point elsewhere than most: score = -cos(k, anchor), the anchor being the mean of the unit
/// keys of all entries held.
///
/// The mean is of unit keys: that of the keys themselves ranks differently. Keys count in the form that the view has; a key
/// of zeros has cosine 0.
/// Source: Park et al. 2025, arXiv 2504.15364 (KeyDiff).
///
/// Needs: keys. State: none. Cost: 3*n*dk multiply-adds a plan.
struct KeyDiversity {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;

  Wants wants() const { return {}; }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    const std::size_t d = std::size_t(c.head.keys.dim());
    auto inverse = c.scratch.floats(out.size());  // 1 / |k|
    auto anchor = c.scratch.floats(d);
    std::fill(anchor.begin(), anchor.end(), 0.0f);
    c.head.keys.for_each_run([&](auto run, Index first) {
      float* const inv = inverse.data() + first;
      kernels::norms(run, inv);
      for (Index i = 0; i < run.n; ++i) inv[i] = inv[i] > 0 ? 1.0f / inv[i] : 0.0f;
      kernels::axpy_group(run, inv, 0, 1, anchor.data());
    });
    double squared = 0;
    for (const float x : anchor) squared += double(x) * double(x);
    const float scale = squared > 0 ? float(-1.0 / std::sqrt(squared)) : 0.0f;
    c.head.keys.for_each_run(
        [&](auto run, Index first) { kernels::dot(run, anchor.data(), scale, out.data() + first); });
    for (std::size_t i = 0; i < out.size(); ++i) out[i] *= inverse[i];
    return Done{};
  }
};
static_assert(Signal<KeyDiversity>);

}  // namespace kvist::inline KVIST_ABI
