#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// How many of the last queries of the call the evidence shows, at most `window` (all_queries: no limit).
template <Head H>
Index window_size(const HeadContext<H>& c, Index window) {
  const Index have = c.seen.probs ? c.seen.probs.w : c.seen.queries ? c.seen.queries.w : 0;
  return window == all_queries ? have : std::min(window, have);
}

/// softmax of x, in place, over its finite entries; -infinity becomes 0. All -infinity: zeros.
inline void softmax(std::span<float> x) {
  float top = -std::numeric_limits<float>::infinity();
  for (const float v : x) top = std::max(top, v);
  if (!(top > -std::numeric_limits<float>::infinity())) return std::fill(x.begin(), x.end(), 0.0f);
  double sum = 0;
  for (float& v : x) {
    v = std::exp(v - top);
    sum += v;
  }
  const float inv = float(1.0 / sum);
  for (float& v : x) v *= inv;
}

/// Logits [n] of query head g's query `i` (a row of the evidence), log-weights included, -infinity for entries newer than
/// the query.
/// Requires: queries in the evidence.
template <Head H>
void window_logits(const HeadContext<H>& c, int g, Index i, std::span<float> out) {
  const float scale = 1.0f / std::sqrt(float(c.shape.dim_k));
  const std::span<const float> q = c.seen.queries.row(g, i);
  c.head.keys.for_each_run(
      [&](auto run, Index first) { kernels::dot(run, q.data(), scale, out.data() + first); });
  const std::span<const float> weights = log_weight_of(c.head);
  for (std::size_t j = 0; j < weights.size(); ++j) out[j] += weights[j];
  // Positions ascend, so what is newer than the query stands at the end.
  const Pos mine = c.seen.first_query + i;
  for (Index j = c.size(); j-- > 0 && c.head.pos[std::size_t(j)] > mine;)
    out[std::size_t(j)] = -std::numeric_limits<float>::infinity();
}

/// Probabilities [n] of query head g's query `i` of the last `w` (of window_size): given ones, or made from queries and
/// keys. Requires: probs or queries in the evidence; 0 <= i < w <= what the evidence shows.
template <Head H>
void window_row(const HeadContext<H>& c, int g, Index w, Index i, std::span<float> out) {
  if (c.seen.probs) {
    const std::span<const float> row = c.seen.probs.row(g, c.seen.probs.w - w + i);
    std::copy(row.begin(), row.end(), out.begin());
    return;
  }
  window_logits(c, g, c.seen.queries.w - w + i, out);
  softmax(out);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
