#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/scratch.hpp>
#include <kvist/kernels/rows.hpp>

#include <algorithm>
#include <span>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Calls f(row [d], index) for every row of a view, ascending, each as contiguous f32 that lives for the
/// call. A few rows are expanded at a time, so that no copy of the view is made.
template <RowView V, class F>
void for_each_row(const V& view, Scratch& scratch, F&& f) {
  constexpr Index tile = 32;
  const std::size_t d = std::size_t(view.dim());
  auto floats = scratch.floats(std::size_t(tile) * d);
  view.for_each_run([&](auto run, Index first) {
    for (Index i = 0; i < run.n; i += tile) {
      const Index count = std::min(tile, run.n - i);
      kernels::to_f32(run.part(i, count), floats.data());
      for (Index r = 0; r < count; ++r)
        f(std::span<const float>(floats.data() + std::size_t(r) * d, d), first + i + r);
    }
  });
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
