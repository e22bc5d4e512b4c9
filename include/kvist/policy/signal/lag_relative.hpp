#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/tiles.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by how uneven their keys and values are when seen by the range of those that follow: no
/// attention is needed, only what lies in the cache.
///
/// Behind `sinks` entries come partitions of `lag`. In each but the last, every channel of a row is brought
/// to the range (lowest to largest) of that channel in the next partition; the standard deviation over
/// channels (divisor d - 1), softmax over the partition, mean of keys and values, and of that the rank in the
/// partition divided by `lag` is the score. The sinks, the last whole partition and what follows it score 1.
/// With fewer than two partitions the score is recency. The last entries differ from 1 by less than 2e-5 so
/// that the newest stay where not all of them fit; in the source they tie. A channel without any range counts
/// as 0; there the source divides by zero. Of equal scores in a partition the lower row ranks higher.
/// Source: Liang et al. 2025, arXiv 2504.04704 (LagKV), as NVIDIA/kvpress, LagKVPress, defines it (rotated
/// keys).
///
/// Needs: keys and values. State: none. Cost: a few passes over n*(dk + dv), sorting n entries by partition.
struct LagRelative {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  using PerHead = Nothing;
  Index sinks = 4;
  Index lag = 128;

  Wants wants() const { return {}; }

  Status validate(const Shape&) const {
    if (sinks < 0) return Error{Errc::bad_option, "sinks count entries and can't be negative", 0, sinks};
    if (lag < 1 || lag > 2048)  // ranks must stay below the scores of the last entries
      return Error{Errc::bad_option, "a partition holds 1 to 2048 entries", 2048, lag};
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead&, std::span<float> out) const {
    const Index n = c.size(), body = n - std::min(sinks, n), parts = body / lag;
    std::fill(out.begin(), out.end(), 1.0f);
    const std::span<float> rest = out.subspan(std::size_t(n - body));
    if (parts < 2) {
      for (Index i = 0; i < body; ++i) rest[std::size_t(i)] = float(i) / float(body);
      return Done{};
    }
    const std::size_t ranked = std::size_t((parts - 1) * lag);
    for (std::size_t i = ranked; i < rest.size(); ++i) rest[i] = 1.0f - float(rest.size() - 1 - i) * 0x1p-24f;

    auto of_keys = c.scratch.floats(ranked);
    auto of_values = c.scratch.floats(ranked);
    unevenness(c, c.head.keys, parts, of_keys);
    unevenness(c, c.head.values, parts, of_values);
    std::vector<Index> order(std::size_t(lag), 0);
    for (std::size_t p = 0; p < ranked; p += std::size_t(lag)) {
      const std::span<float> mine = rest.subspan(p, std::size_t(lag));
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = (of_keys[p + i] + of_values[p + i]) / 2;
      rank(mine, order);
    }
    return Done{};
  }

 private:
  /// For each row of all partitions but the last: softmax over its partition of the deviation over channels.
  template <Head H, RowView V>
  void unevenness(const HeadContext<H>& c, const V& view, Index parts, std::span<float> out) const {
    const std::size_t d = std::size_t(view.dim());
    auto low = c.scratch.floats(std::size_t(parts) * d);
    auto high = c.scratch.floats(std::size_t(parts) * d);
    std::fill(low.begin(), low.end(), std::numeric_limits<float>::infinity());
    std::fill(high.begin(), high.end(), -std::numeric_limits<float>::infinity());
    detail::for_each_row(view, c.scratch, [&](std::span<const float> x, Index row) {
      const Index p = row < sinks ? parts : (row - sinks) / lag;
      if (p >= parts) return;
      for (std::size_t k = 0; k < d; ++k) {
        float &l = low[std::size_t(p) * d + k], &h = high[std::size_t(p) * d + k];
        l = std::min(l, x[k]);
        h = std::max(h, x[k]);
      }
    });
    detail::for_each_row(view, c.scratch, [&](std::span<const float> x, Index row) {
      const Index i = row - sinks;
      if (row < sinks || std::size_t(i) >= out.size()) return;
      const std::size_t next = std::size_t(i / lag + 1) * d;
      out[std::size_t(i)] = deviation(x, low.subspan(next, d), high.subspan(next, d));
    });
    for (std::size_t p = 0; p < out.size(); p += std::size_t(lag))
      detail::softmax(out.subspan(p, std::size_t(lag)));
  }

  static float deviation(std::span<const float> x, std::span<const float> low, std::span<const float> high) {
    const auto scaled = [&](std::size_t k) {
      const float range = high[k] - low[k];
      return range > 0 ? double((x[k] - low[k]) / range) : 0.0;
    };
    double sum = 0, square = 0;
    for (std::size_t k = 0; k < x.size(); ++k) sum += scaled(k);
    const double mean = sum / double(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) square += (scaled(k) - mean) * (scaled(k) - mean);
    return x.size() < 2 ? 0.0f : float(std::sqrt(square / double(x.size() - 1)));
  }

  /// Scores to ranks / lag, 0 for the lowest.
  void rank(std::span<float> x, std::vector<Index>& order) const {
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](Index a, Index b) {
      const float xa = x[std::size_t(a)], xb = x[std::size_t(b)];
      return xa < xb || (xa == xb && a > b);
    });
    for (std::size_t r = 0; r < order.size(); ++r) x[std::size_t(order[r])] = float(r) / float(lag);
  }
};
static_assert(Signal<LagRelative>);

}  // namespace kvist::inline KVIST_ABI
