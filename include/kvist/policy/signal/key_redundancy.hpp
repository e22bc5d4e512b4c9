#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/policy/detail/channel_tiles.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// Ranks down entries whose keys resemble many others: score = - softmax over all entries of the mean cosine
/// similarity of the other keys to this one. Of several near-equal keys the newest is spared: in each key's
/// row of similarities the last one above `threshold` counts as 0.
///
/// Where a key resembles none, the published code spares the first entry instead, which makes it look more or
/// less redundant than it is; `spare_first` = true follows the code.
/// Source: Cai et al. 2025, arXiv 2505.24133 (R-KV); official code Zefan-Cai/R-KV, rkv/utils.py.
///
/// Needs: keys. State: none. Cost: n^2*dk multiply-adds a plan.
struct KeyRedundancy {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  float threshold = 0.5f;
  bool spare_first = true;

  Wants wants() const { return {}; }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    similarities(c, out);
    detail::softmax(out);
    for (float& x : out) x = -x;
    return Done{};
  }

  /// out [n] = mean similarity of all keys to each, before the softmax.
  template <Head H>
  void similarities(const HeadContext<H>& c, std::span<float> out) const {
    const Index n = c.size();
    const std::size_t d = std::size_t(c.shape.dim_k);
    auto unit = c.scratch.floats(std::size_t(n) * d);
    c.head.keys.for_each_run(
        [&](auto run, Index first) { kernels::to_f32(run, unit.data() + first * std::ptrdiff_t(d)); });
    auto norms = c.scratch.floats(std::size_t(n));
    kernels::norms(rows(static_cast<const float*>(unit.data()), n, int(d)), norms.data());
    for (Index i = 0; i < n; ++i) {
      const float inverse = 1 / (norms[std::size_t(i)] + 1e-8f);
      for (std::size_t k = 0; k < d; ++k) unit[std::size_t(i) * d + k] *= inverse;
    }
    auto memory = c.scratch.floats(detail::ChannelTiles::floats(n, int(d)));
    const detail::ChannelTiles all(unit, n, int(d), memory);
    auto cosine = c.scratch.floats(std::size_t(block) * std::size_t(n));
    std::fill(out.begin(), out.end(), 0.0f);
    for (Index i = 0; i < n; i += block) {  // each key is read once for a block of rows
      const Index count = std::min(block, n - i);
      all.dots(unit.data() + i * std::ptrdiff_t(d), int(count), 1.0f, cosine.data(), n);
      for (Index r = 0; r < count; ++r)
        spare(cosine.subspan(std::size_t(r) * std::size_t(n), std::size_t(n)), i + r);
      kernels::sum_rows(rows(static_cast<const float*>(cosine.data()), count, n), out.data());
    }
    for (float& x : out) x /= float(n);
  }

 private:
  static constexpr Index block = 16;

  /// One key's similarities, without itself and the newest near-equal one.
  void spare(std::span<float> row, Index mine) const {
    row[std::size_t(mine)] = 0;
    std::size_t spared = row.size();
    while (spared > 0 && !(row[spared - 1] > threshold)) --spared;
    if (spared > 0) row[spared - 1] = 0;
    else if (spare_first) row[0] = 0;
  }
};
static_assert(Signal<KeyRedundancy>);

}  // namespace kvist::inline KVIST_ABI
