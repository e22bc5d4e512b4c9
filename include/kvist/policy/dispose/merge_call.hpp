#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/range.hpp>
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The record that merges keep of each entry.
struct MergeRecord {
  float count = 1;             ///< tokens that it stands for
  std::int32_t stands_in = 0;  ///< 1: it is a compensation entry

  /// For snapshots.
  template <class V, class Self>
  static void fields(V& v, Self& self) {
    v.number(self.count, 1.0f, 4e9f), v.number(self.stands_in, 0, 1);
  }
};

/// A loser, and the entry that stays into which it may be folded.
struct MergePair {
  Index src = 0, dst = 0;
  float similarity = 0;  ///< as the matching measures it; NaN: never folded
  friend bool operator==(const MergePair&, const MergePair&) = default;
};

/// One head as the parts of a merge see it: keys expanded to f32, in the form of the view (rotated or raw); values are
/// read row by row, as few of them are needed.
struct MergeCall {
  using ReadValue = void (*)(const void* view, Index row, float* out);

  Index n = 0;
  int dim_k = 0, dim_v = 0;
  std::span<const float> keys;           ///< [n, dk]
  ReadValue read_value = nullptr;        ///< row i of the values as f32 [dv]
  const void* values = nullptr;          ///< what it reads from
  std::span<const float> scores;         ///< [n] of the policy's signal
  std::span<const MergeRecord> records;  ///< [n]
  std::span<const float> log_weight;     ///< [n] added to the logits, or empty where all are 0
  std::span<const Pos> pos;              ///< [n]
  Guards guards;
  Index budget = 0;       ///< entries that may stay
  Index mean = 0;         ///< entries per head that the layer was given
  Index shared_rows = 0;  ///< rows before it may not be written
  const Evidence* seen = nullptr;
  Scratch* scratch = nullptr;

  std::span<const float> key(Index i) const {
    return keys.subspan(std::size_t(i) * std::size_t(dim_k), std::size_t(dim_k));
  }
  void value(Index i, std::span<float> out) const { read_value(values, i, out.data()); }
  float count(Index i) const { return records[std::size_t(i)].count; }
  float bias(Index i) const { return log_weight.empty() ? 0.0f : log_weight[std::size_t(i)]; }
  float score(Index i) const { return scores[std::size_t(i)]; }

  /// The call of one head. `keys` is memory for its keys [n, dk].
  template <Head H>
  static MergeCall of(const HeadContext<H>& c, std::span<const float> head_scores,
                      std::span<const MergeRecord> head_records, std::span<float> keys) {
    c.head.keys.for_each_run([&](auto run, Index first) {
      kernels::to_f32(run, keys.data() + std::ptrdiff_t(first) * c.shape.dim_k);
    });
    MergeCall call;
    call.n = c.size();
    call.dim_k = c.shape.dim_k;
    call.dim_v = c.shape.dim_v;
    call.keys = keys;
    call.read_value = [](const void* view, Index row, float* out) {
      for_each_run_in(*static_cast<const std::remove_cvref_t<decltype(c.head.values)>*>(view), row, 1,
                      [&](auto run, Index) { kernels::to_f32(run, out); });
    };
    call.values = &c.head.values;
    call.scores = head_scores;
    call.records = head_records;
    call.log_weight = log_weight_of(c.head);
    call.pos = c.head.pos;
    call.guards = c.guards;
    call.budget = c.budget;
    call.mean = c.mean_budget;
    call.shared_rows = c.shared_rows;
    call.seen = &c.seen;
    call.scratch = &c.scratch;
    return call;
  }
};

/// Losers that go into one entry, with that entry first in every array.
struct MergeGroup {
  Index dst = 0;
  std::span<const MergePair> members;  ///< [m], ascending by src
  Index size() const { return Index(members.size()) + 1; }
  Index row(Index i) const { return i == 0 ? dst : members[std::size_t(i) - 1].src; }
};

namespace detail {

inline float squared_norm(std::span<const float> x) {
  float sum = 0;
  for (const float v : x) sum += v * v;
  return sum;
}
inline float dot(std::span<const float> x, std::span<const float> y) {
  float sum = 0;
  for (std::size_t c = 0; c < x.size(); ++c) sum += x[c] * y[c];
  return sum;
}
/// Cosine of two rows: 0 where one is zero, NaN where one is not finite.
inline float cosine(std::span<const float> x, std::span<const float> y) {
  const float norms = std::sqrt(squared_norm(x)) * std::sqrt(squared_norm(y));
  if (norms == 0) return 0;
  return std::isfinite(norms) ? dot(x, y) / norms : std::numeric_limits<float>::quiet_NaN();
}

/// Rows [n, d] divided by their norms; zero rows stay zero, rows that are not finite become NaN.
inline void to_unit(std::span<float> rows, Index n, int d) {
  for (Index i = 0; i < n; ++i) {
    const auto row = rows.subspan(std::size_t(i) * std::size_t(d), std::size_t(d));
    const float norm = std::sqrt(squared_norm(row));
    const float by = norm == 0             ? 0.0f
                     : std::isfinite(norm) ? 1 / norm
                                           : std::numeric_limits<float>::quiet_NaN();
    for (float& x : row) x *= by;
  }
}

/// Cosines of neighbouring keys: out[i] = cos(k_i, k_{i+1}), i = 0 .. n-2; 0 and NaN as in cosine().
inline void neighbour_cosines(const MergeCall& c, std::span<float> out) {
  auto squares = c.scratch->floats(std::size_t(c.n));
  kernels::neighbour_dots(rows(static_cast<const float*>(c.keys.data()), c.n, c.dim_k), out.data(),
                          squares.data());
  for (std::size_t i = 0; i + 1 < std::size_t(c.n); ++i) {
    const float norms = std::sqrt(squares[i]) * std::sqrt(squares[i + 1]);
    out[i] = norms == 0             ? 0.0f
             : std::isfinite(norms) ? out[i] / norms
                                    : std::numeric_limits<float>::quiet_NaN();
  }
}

/// Adds rows to the losers, which stay ascending.
inline void add_losers(std::vector<Index>& drop, const std::vector<Index>& more) {
  const auto middle = std::ptrdiff_t(drop.size());
  drop.insert(drop.end(), more.begin(), more.end());
  std::sort(drop.begin() + middle, drop.end());
  std::inplace_merge(drop.begin(), drop.begin() + middle, drop.end());
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
